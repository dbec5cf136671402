// What every CUDA source here begins with: it is put in front of the source before NVRTC compiles it.
// Compiled for sm_80 and newer. No header is included: bf16 values are their 16 bits, converted below.

typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define FULL_MASK 0xffffffffu
#define LOG2E 1.4426950408889634f
#define INFINITE __int_as_float(0x7f800000)

// Said first by kernels that may begin before those ahead of them have ended: what those wrote is there after it, and nothing reads what
// this one writes any more.
__device__ __forceinline__ void after_others() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- conversions

__device__ __forceinline__ float to_f32(bf16 x) { return __uint_as_float((u32)x << 16); }
__device__ __forceinline__ float to_f32(float x) { return x; }

// Rounds to nearest, ties to even.
__device__ __forceinline__ bf16 to_bf16(float x) {
    bf16 out;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out) : "f"(x));
    return out;
}

// Two values in one register, `low` in the low half.
__device__ __forceinline__ u32 pack_bf16(float low, float high) {
    u32 out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

__device__ __forceinline__ float low_f32(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_f32(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// ---- eight values at once: 16 bytes of bf16, 32 bytes of f32; the address must be a multiple of 16

__device__ __forceinline__ void load8(const bf16* from, float (&x)[8]) {
    uint4 raw = *(const uint4*)from;
    x[0] = low_f32(raw.x); x[1] = high_f32(raw.x); x[2] = low_f32(raw.y); x[3] = high_f32(raw.y);
    x[4] = low_f32(raw.z); x[5] = high_f32(raw.z); x[6] = low_f32(raw.w); x[7] = high_f32(raw.w);
}

__device__ __forceinline__ void load8(const float* from, float (&x)[8]) {
    float4 a = ((const float4*)from)[0], b = ((const float4*)from)[1];
    x[0] = a.x; x[1] = a.y; x[2] = a.z; x[3] = a.w; x[4] = b.x; x[5] = b.y; x[6] = b.z; x[7] = b.w;
}

__device__ __forceinline__ void store8(bf16* to, const float (&x)[8]) {
    *(uint4*)to = make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}

__device__ __forceinline__ void store8(float* to, const float (&x)[8]) {
    ((float4*)to)[0] = make_float4(x[0], x[1], x[2], x[3]);
    ((float4*)to)[1] = make_float4(x[4], x[5], x[6], x[7]);
}

// ---- functions of one number

__device__ __forceinline__ float exp2_fast(float x) {
    float out;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}

__device__ __forceinline__ float exp_fast(float x) { return exp2_fast(x * LOG2E); }

// ---- sums and maxima of a warp

__device__ __forceinline__ float warp_sum(float x) {
    #pragma unroll
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(FULL_MASK, x, step);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    #pragma unroll
    for (int step = 16; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(FULL_MASK, x, step));
    return x;
}

// ---- tensor cores and copies to shared memory

// C += A · B; A is 16 × 16 by rows, B 16 × 8 by columns. With group = lane / 4 and pair = 2 · (lane % 4) a lane holds
// A at rows group (a0, a2), group + 8 (a1, a3) and columns pair.. (a0, a1), pair + 8.. (a2, a3);
// B at rows pair.. (b0), pair + 8.. (b1) and column group; C at rows group (c0, c1), group + 8 (c2, c3), columns pair, pair + 1.
__device__ __forceinline__ void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

// Four 8 × 8 matrices; lane i gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

// The transpose of an 8 × 8 matrix held by a warp as C's upper half is.
__device__ __forceinline__ u32 transpose_matrix(u32 x) {
    u32 out;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(x));
    return out;
}

// Copies 16 bytes in the background, or writes zeros where `valid` is false.
__device__ __forceinline__ void copy16(u32 to, const void* from, bool valid) {
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(to), "l"(__cvta_generic_to_global(from)), "r"(bytes) : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int PENDING>
__device__ __forceinline__ void wait_copies() { asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory"); }

// Byte offset of 16-byte piece `piece` of row `row` in a tile of bf16 rows of DIM values (64 or more), arranged so that
// eight rows' equal pieces lie in different banks.
template <int DIM>
__device__ __forceinline__ u32 tile_offset(int row, int piece) { return (u32)(row * DIM * 2 + ((piece ^ (row & 7)) << 4)); }

// ---- packed rows: the numbers of a segment, which attention.cu explains

#define START 0
#define LEN 1
#define PREFIX_START 2
#define PREFIX_LEN 3
#define FIRST_CHILD 4
#define CHILDREN 5

// The key tiles that a tile of queries sees: those of the prefix, then those of its own segment.
struct KeyTiles {
    int prefix, count, len, prefix_len, start, prefix_start;
    __device__ __forceinline__ KeyTiles(const int* s, int end, int causal, int width)
        : len(s[LEN]), prefix_len(s[PREFIX_LEN]), start(s[START]), prefix_start(s[PREFIX_START]) {
        prefix = (prefix_len + width - 1) / width;
        count = prefix + ((causal ? min(len, end) : len) + width - 1) / width;
    }
    __device__ __forceinline__ bool in_prefix(int tile) const { return tile < prefix; }
    // Index of the tile's first key within its part.
    __device__ __forceinline__ int first(int tile, int width) const { return (in_prefix(tile) ? tile : tile - prefix) * width; }
    __device__ __forceinline__ int left(int tile, int width) const { return (in_prefix(tile) ? prefix_len : len) - first(tile, width); }
    __device__ __forceinline__ i64 row(int tile, int width) const { return (in_prefix(tile) ? prefix_start : start) + first(tile, width); }
};
