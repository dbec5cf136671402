// AdamW (or Adam, where decay is added to the gradient) over parts of parameters, all in one launch. What does not depend on T is
// compiled once, for f32.

// A part: `count` values with their moments and gradient, f32, that begin at value `start` of a parameter whose rows are `columns` long.
// Its rounded copy begins with that parameter's first value; it is f32 or bf16 by `kind` (0: there is none), with rows `stride` apart
// (columns 0: without gaps).
struct Move {
    float *values, *first, *second;
    const float* gradient;
    void* copy;
    u64 start, count;
    u32 columns, stride;
    u32 first_block, kind;
    float rate, root2;
};
static_assert(sizeof(Move) == 80, "as it is written in adam.rs");

// Numbers that all parts have.
struct Numbers {
    float factor, beta1, beta2, eps, shrink, decay;
};

template <int N, typename S> __device__ __forceinline__ void take(float (&x)[N], const S* from) {
    if constexpr (N == 4) {
        const float4 raw = *(const float4*)from;
        x[0] = raw.x; x[1] = raw.y; x[2] = raw.z; x[3] = raw.w;
    } else {
        x[0] = *from;
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
    for (u64 i = from + threadIdx.x * N; i < end; i += blockDim.x * N) {
        float x[N], g[N], m[N], v[N];
        take<N>(x, move.values + i);
        take<N>(g, move.gradient + i);
        take<N>(m, (const float*)move.first + i);
        take<N>(v, (const float*)move.second + i);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            x[j] = next(x[j], g[j], m[j], v[j], move, of);
        }
        put<N>(move.first + i, m);
        put<N>(move.second + i, v);
        put<N>(move.values + i, x);
        if (move.kind == 1) put<N>((float*)move.copy + place_of(move, move.start + i), x);
        else if (move.kind == 2) put<N>((bf16*)move.copy + place_of(move, move.start + i), x);
    }
}

// Whether four values at a time begin at multiples of their size, wherever one looks.
__device__ __forceinline__ bool by_fours(const Move& move) {
    const u64 values = (u64)move.values | (u64)move.first | (u64)move.second | (u64)move.gradient;
    const u64 copy = move.kind == 1 ? (u64)move.copy : (u64)move.copy << 1;
    return ((values | copy) & 15) == 0 && ((move.start | move.columns | move.stride) & 3) == 0;
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
