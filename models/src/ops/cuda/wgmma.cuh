// What the sources for Hopper (sm_90a alone) share: it stands between prelude.cuh and each of them.

#define WARPGROUP 128

// ---- wgmma

// Describes a tile of rows of 128 bytes, swizzled by 128 as `tile_offset<64>` does, or its part from `address` on: eight rows are
// 1024 bytes. The same words describe a tile by rows (its rows are the operand's rows, a step of 16 along them 32 bytes) and one by
// columns (its rows are what is summed over, a step of 16 of them 2048 bytes). More than 64 columns are tiles of 64 one after the
// other, `next` bytes apart, which only a product by columns needs to know.
__device__ __forceinline__ u64 describe(u32 address, u32 next = 16) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)(next >> 4) << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

#define EIGHT(c, i) \
    "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define HELD_32(c, i) EIGHT(c, i), EIGHT(c, i + 8), EIGHT(c, i + 16), EIGHT(c, i + 24)
#define HELD_64(c, i) HELD_32(c, i), HELD_32(c, i + 32)
#define HELD_128(c, i) HELD_64(c, i), HELD_64(c, i + 64)
#define NAMES_32 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES_64 NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define NAMES_128 NAMES_64 \
    ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95" \
    ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

// Products of a warpgroup: c (64 × COLUMNS, a warp's 16 rows as C of m16n8k16) = A · B, plus c where `add`. B is 16 × COLUMNS in
// shared memory; A is 64 × 16 there too, or is held as m16n8k16's, a warp its 16 rows. o0.. are the operands after c.
#define MULTIPLY(COLUMNS, HELD, o0, o1, o2, o3, o4, o5, o6) \
    template <int BY_COLUMNS> \
    __device__ __forceinline__ void multiply(float (&c)[HELD], u64 a, u64 b, int add) { \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " o2 ", 0;\n" \
            "wgmma.mma_async.sync.aligned.m64n" #COLUMNS "k16.f32.bf16.bf16 {" NAMES_##HELD "}, " o0 ", " o1 ", p, 1, 1, 0, " o3 ";\n}" \
            : HELD_##HELD(c, 0) : "l"(a), "l"(b), "r"(add), "n"(BY_COLUMNS)); \
    } \
    template <int BY_COLUMNS> \
    __device__ __forceinline__ void multiply(float (&c)[HELD], const u32 (&a)[4], u64 b, int add) { \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " o5 ", 0;\n" \
            "wgmma.mma_async.sync.aligned.m64n" #COLUMNS "k16.f32.bf16.bf16 {" NAMES_##HELD "}, {" o0 "," o1 "," o2 "," o3 "}, " o4 ", p, 1, 1, " o6 ";\n}" \
            : HELD_##HELD(c, 0) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(BY_COLUMNS)); \
    }

MULTIPLY(64, 32, "%32", "%33", "%34", "%35", "%36", "%37", "%38")
MULTIPLY(128, 64, "%64", "%65", "%66", "%67", "%68", "%69", "%70")
MULTIPLY(256, 128, "%128", "%129", "%130", "%131", "%132", "%133", "%134")

// Before products that read registers written since the last ones.
__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int PENDING>
__device__ __forceinline__ void wait_products() { asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(PENDING) : "memory"); }

// Keeps the compiler from moving uses of what a product writes or reads over the wait for it.
template <int N>
__device__ __forceinline__ void settle(float (&c)[N]) {
    #pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(c[i]) :: "memory");
}

template <int N>
__device__ __forceinline__ void settle(u32 (&a)[N][4]) {
    #pragma unroll
    for (int k = 0; k < N; k++) {
        #pragma unroll
        for (int i = 0; i < 4; i++) asm volatile("" : "+r"(a[k][i]) :: "memory");
    }
}

// What a warpgroup holds as a product, in bf16 as A of the next.
template <int N>
__device__ __forceinline__ void as_a(u32 (&a)[N][4], const float (&c)[N * 8]) {
    #pragma unroll
    for (int k = 0; k < N; k++) {
        #pragma unroll
        for (int i = 0; i < 4; i++) a[k][i] = pack_bf16(c[k * 8 + i * 2], c[k * 8 + i * 2 + 1]);
    }
}

template <int N>
__device__ __forceinline__ void clear(float (&c)[N]) {
    #pragma unroll
    for (int i = 0; i < N; i++) c[i] = 0.0f;
}

// ---- shared memory

// Copies to shared memory must be seen by wgmma, which reads by another path: said between a copy's end and the product, on either
// side of the barrier between them.
__device__ __forceinline__ void copies_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ void copy4(u32 to, const void* from, bool valid) {
    int bytes = valid ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" :: "r"(to), "l"(__cvta_generic_to_global(from)), "r"(bytes) : "memory");
}

__device__ __forceinline__ void store4(u32 to, u32 x) { asm volatile("st.shared.b32 [%0], %1;" :: "r"(to), "r"(x) : "memory"); }

__device__ __forceinline__ void store16(u32 to, uint4 x) {
    asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" :: "r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w) : "memory");
}

__device__ __forceinline__ uint4 load16(u32 from) {
    uint4 x;
    asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "r"(from) : "memory");
    return x;
}

// ---- barriers in shared memory: the phase of parity 0, 1, 0 .. ends when `count` have arrived

__device__ __forceinline__ void start_barrier(u32 barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(barrier), "r"(count) : "memory");
}

__device__ __forceinline__ void arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(barrier) : "memory");
}

// Arrives when all copies that this thread has asked for so far have come.
__device__ __forceinline__ void announce_copies(u32 barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" :: "r"(barrier) : "memory");
}

// Whether the phase of this parity has ended. Before any has, that of parity 1 counts as ended.
__device__ __forceinline__ bool ended(u32 barrier, int parity) {
    u32 yes;
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
        : "=r"(yes) : "r"(barrier), "r"(parity) : "memory");
    return yes;
}

__device__ __forceinline__ void await(u32 barrier, int parity) {
    while (!ended(barrier, parity)) {}
}

// ---- two blocks of a cluster, which share what they read

// How the driver describes a matrix to the copy engine.
struct __align__(64) Map { u64 words[16]; };

// Arrives, and has the phase wait for so many bytes that the copy engine brings too.
__device__ __forceinline__ void expect_bytes(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(barrier), "r"(bytes) : "memory");
}

// Arrives at the barrier that stands at this address in a block of the pair. It says that this thread has read, no more: to have its
// writes seen over there too (.release.cluster) would wait for all memory each time.
__device__ __forceinline__ void arrive_at(u32 barrier, u32 block) {
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" :: "r"(barrier), "r"(block) : "memory");
}

// All threads of both blocks: what each wrote to shared memory before is there for the other.
__device__ __forceinline__ void meet_pair() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Copies the box at column x and row y to the same place in both blocks, and tells the barrier in each.
__device__ __forceinline__ void fetch_for_both(u32 to, const Map* map, int x, int y, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;"
        :: "r"(to), "l"(map), "r"(barrier), "r"(x), "r"(y), "h"((unsigned short)3) : "memory");
}

// ---- registers

// Registers a thread of this warpgroup may have from here on.
template <int COUNT>
__device__ __forceinline__ void fewer_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(COUNT)); }
template <int COUNT>
__device__ __forceinline__ void more_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(COUNT)); }

