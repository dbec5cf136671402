// AdamW (or Adam, where decay is added to the gradient) over parts of parameters, all in one launch. What does not depend on T is
// compiled once, for f32.

// A part: `count` values with their moments and gradient, f32, that begin at value `start` of a parameter whose rows are `columns` long.
// Its rounded copy begins with that parameter's first value; it is f32 or bf16 by `kind` (0: there is none, 1 f32, 2 bf16), with rows
// `stride` apart (columns 0: without gaps). Kinds 5 and 6: the copy is all there is. It holds bf16 numbers, and stays so by a rounding
// that draws from the stream of `seed`, `parameter` and `step`; `values` is then where they go besides, as bf16 (null: nowhere).
struct Move {
    float *values, *first, *second;
    const float* gradient;
    void* copy;
    u64 start, count;
    u32 columns, stride;
    u32 first_block, kind;
    float rate, root2;
    u32 seed0, seed1;
    u32 parameter, step;
};
static_assert(sizeof(Move) == 96, "as it is written in adam.rs");

// Numbers that all parts have.
struct Numbers {
    float factor, beta1, beta2, eps, shrink, decay;
};

template <int N> __device__ __forceinline__ void take(float (&x)[N], const float* from) {
    if constexpr (N == 4) {
        const float4 raw = *(const float4*)from;
        x[0] = raw.x; x[1] = raw.y; x[2] = raw.z; x[3] = raw.w;
    } else {
        x[0] = *from;
    }
}
template <int N> __device__ __forceinline__ void take(float (&x)[N], const bf16* from) {
    if constexpr (N == 4) {
        const uint2 raw = *(const uint2*)from;
        x[0] = __uint_as_float(raw.x << 16); x[1] = __uint_as_float(raw.x & 0xffff0000u);
        x[2] = __uint_as_float(raw.y << 16); x[3] = __uint_as_float(raw.y & 0xffff0000u);
    } else {
        x[0] = load(*from);
    }
}
template <int N> __device__ __forceinline__ void put(float* to, const float (&x)[N]) {
    if constexpr (N == 4) *(float4*)to = make_float4(x[0], x[1], x[2], x[3]);
    else *to = x[0];
}
template <int N> __device__ __forceinline__ void put(bf16* to, const float (&x)[N]) {
    if constexpr (N == 4) {
        u32 words[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(words[i]) : "f"(x[2 * i + 1]), "f"(x[2 * i]));
        *(uint2*)to = make_uint2(words[0], words[1]);
    } else {
        *to = store<bf16>(x[0]);
    }
}

// Rounds values from number `at` of the parameter on to bf16 numbers as `rounding.rs` does: N values have one counter.
template <int N> __device__ __forceinline__ void round_at_random(float (&x)[N], const Move& move, u64 at) {
    const u32 use = 0x36316662; // "bf16"
    const uint4 words = philox(make_uint4((u32)(at / 4), move.parameter, move.step, use), move.seed0, move.seed1);
    const u32 first = N == 4 ? 0 : (u32)at & 3;
#pragma unroll
    for (int j = 0; j < N; ++j) {
        const u32 which = first + j;
        const u32 word = which == 0 ? words.x : which == 1 ? words.y : which == 2 ? words.z : words.w;
        const u32 bits = __float_as_uint(x[j]);
        // What is not finite stays.
        if ((bits & 0x7f800000u) != 0x7f800000u) x[j] = __uint_as_float((bits + (word >> 16)) & 0xffff0000u);
    }
}

__device__ __forceinline__ u64 place_of(const Move& move, u64 at) {
    return move.columns ? at / move.columns * move.stride + at % move.columns : at;
}

// A value's next, and its moments'. Every rounding is said, so that it is the same however many are moved at a time.
__device__ __forceinline__ float next(float x, float g, float& m, float& v, const Move& move, const Numbers& of) {
    const float slope = __fmaf_rn(of.decay, x, __fmul_rn(g, of.factor));
    m = __fmaf_rn(m, of.beta1, __fmul_rn(slope, 1.0f - of.beta1));
    v = __fmaf_rn(v, of.beta2, __fmul_rn(__fmul_rn(slope, slope), 1.0f - of.beta2));
    const float root = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), move.root2), of.eps);
    return __fmaf_rn(-__fdiv_rn(m, root), move.rate, __fmul_rn(x, of.shrink));
}

// Values from .. end of a part, N at a time.
template <int N> __device__ __forceinline__ void move_values(const Move& move, u64 from, u64 end, const Numbers& of) {
    const u32 kind = move.kind & 3;
    const bool copy_alone = move.kind > 3;
    for (u64 i = from + threadIdx.x * N; i < end; i += blockDim.x * N) {
        const u64 place = place_of(move, move.start + i);
        float x[N], g[N], m[N], v[N];
        if (!copy_alone) take<N>(x, move.values + i);
        else if (kind == 1) take<N>(x, (const float*)move.copy + place);
        else take<N>(x, (const bf16*)move.copy + place);
        take<N>(g, move.gradient + i);
        take<N>(m, (const float*)move.first + i);
        take<N>(v, (const float*)move.second + i);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            x[j] = next(x[j], g[j], m[j], v[j], move, of);
        }
        put<N>(move.first + i, m);
        put<N>(move.second + i, v);
        if (!copy_alone) {
            put<N>(move.values + i, x);
        } else {
            round_at_random<N>(x, move, move.start + i);
            if (move.values) put<N>((bf16*)move.values + i, x);
        }
        if (kind == 1) put<N>((float*)move.copy + place, x);
        else if (kind == 2) put<N>((bf16*)move.copy + place, x);
    }
}

// Whether four values at a time begin at multiples of their size, wherever one looks.
__device__ __forceinline__ bool by_fours(const Move& move) {
    const u64 own = (u64)move.first | (u64)move.second | (u64)move.gradient;
    const u64 values = move.kind > 3 ? (u64)move.values << 1 : (u64)move.values;
    const u64 copy = (move.kind & 3) == 1 ? (u64)move.copy : (u64)move.copy << 1;
    return ((own | values | copy) & 15) == 0 && ((move.start | move.columns | move.stride) & 3) == 0;
}

// Every part has blocks of its own for `chunk` values each, a multiple of four, from its `first_block` on; `count` parts lie in that
// order. Grid: all blocks. Block: 256.
extern "C" __global__ void __launch_bounds__(256) adam(const Move* moves, int count, int chunk, float factor, float beta1, float beta2,
                                                       float eps, float shrink, float decay) {
    int low = 0, past = count;
    while (past - low > 1) {
        const int middle = (low + past) / 2;
        if (moves[middle].first_block <= blockIdx.x) low = middle;
        else past = middle;
    }
    const Move move = moves[low];
    const Numbers numbers = {factor, beta1, beta2, eps, shrink, decay};
    const u64 from = (u64)(blockIdx.x - move.first_block) * chunk;
    const u64 end = from + chunk < move.count ? from + chunk : move.count;
    const u64 fours = by_fours(move) ? end - end % 4 : from;
    move_values<4>(move, from, fours, numbers);
    move_values<1>(move, fours, end, numbers);
}
