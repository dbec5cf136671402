// Matrix products for Hopper (sm_90a alone) that end in what follows them: by wgmma over tiles that the copy engine brings.
//
// out [m, n] = f(A · B) with A [m, k] by rows, B by columns ("transposed": its rows, [n, k], as weights stand) or by rows ("plain":
// [k, n]); bf16, sums in f32. k, n and all strides are multiples of 8, addresses of 16 bytes. Maps: A's boxes are 64 × 128 (columns ×
// rows), B's the same, or 64 × 64 of a plain B; 128-byte swizzle.
//
// A block has 128 rows and 256 columns of a result at a time. Two blocks are a pair that has the same columns: each fetches half of B's
// tile for both. Of a block's warps the first fetches, two warpgroups multiply 64 rows each, and three warps do what follows, on
// sums that those have rounded to bf16 and left in shared memory while they go on with the next tile.
// Grid: twice as many as there are to be pairs; block: 384; dynamic shared memory: 213072 bytes.

#define DEPTH 64
#define TILE_ROWS 128
#define TILE_COLUMNS 256
#define STAGES 3
#define WRITERS 3 // warps that do what follows
#define A_BYTES (TILE_ROWS * DEPTH * 2)
#define B_BYTES (TILE_COLUMNS * DEPTH * 2)
#define STAGE_BYTES (A_BYTES + B_BYTES)
#define HALF_BYTES (64 * TILE_COLUMNS * 2) // what a warpgroup leaves
#define GROUP 8 // pairs' rows that are gone through for each tile of columns

// ---- tiles

__device__ __forceinline__ void fetch_tile(u32 to, const Map* map, int x, int y, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
        :: "r"(to), "l"(map), "r"(barrier), "r"(x), "r"(y) : "memory");
}

// ---- what follows

#define NOTHING 0
#define BIAS 1
#define GELU 2           // of what a bias was added to
#define GELU_KEPT 3      // and its derivative there
#define ADD 4            // a bias (or null), and another matrix
#define TIMES 5          // another matrix; sums over rows are kept
#define TIMES_TWO 6      // each of two
#define GATE_GELU 7      // GELU times another matrix
#define GATE_SILU 8
#define GATE_GELU_KEPT 9 // and both derivatives
#define GATE_SILU_KEPT 10

struct After {
    bf16* out;         // [m, n]
    bf16* second;      // [m, n]: a derivative, or the second product
    bf16* third;       // [m, n]: the derivative for the other factor of a gate; may be `with`
    const bf16* bias;  // [n]
    const float* added; // [n], or null: a bias where another matrix is added too
    const bf16* with;  // [m, n]: what is added or multiplied by
    const bf16* also;  // [m, n]: the second factor
    float* sums;       // [3 · tiles of 128 rows, n]: sums over each warp's rows
    int out_stride, second_stride, third_stride, with_stride, also_stride;
};

__device__ __forceinline__ float tanh_fast(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// GELU in its tanh form: x / 2 · (1 + tanh(x · (A + B x²))).
#define GELU_A 0.7978845608f
#define GELU_B 0.0356774081f
__device__ __forceinline__ float gelu(float x) {
    float half = 0.5f * x;
    return fmaf(half, tanh_fast(x * fmaf(x * x, GELU_B, GELU_A)), half);
}
__device__ __forceinline__ float gelu(float x, float& slope) {
    float square = x * x, half = 0.5f * x, t = tanh_fast(x * fmaf(square, GELU_B, GELU_A));
    slope = fmaf(half * fmaf(-t, t, 1.0f), fmaf(square, 3.0f * GELU_B, GELU_A), fmaf(0.5f, t, 0.5f));
    return fmaf(half, t, half);
}
__device__ __forceinline__ float silu(float x, float& slope) {
    float s = fmaf(0.5f, tanh_fast(0.5f * x), 0.5f), y = x * s;
    slope = fmaf(y, 1.0f - s, s);
    return y;
}

template <int KIND> __device__ constexpr bool has_with() { return KIND >= ADD; }
template <int KIND> __device__ constexpr bool has_second() { return KIND == GELU_KEPT || KIND == TIMES_TWO || KIND >= GATE_GELU_KEPT; }

// Asked for here and not later, so that several are under way at once.
__device__ __forceinline__ uint4 fetch16(const bf16* from, bool there) {
    uint4 x = make_uint4(0, 0, 0, 0);
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %5, 0;\n@p ld.global.v4.b32 {%0,%1,%2,%3}, [%4];\n}"
        : "+r"(x.x), "+r"(x.y), "+r"(x.z), "+r"(x.w) : "l"(__cvta_generic_to_global(from)), "r"((int)there) : "memory");
    return x;
}
__device__ __forceinline__ void unpack(float (&x)[8], uint4 raw) {
    x[0] = low_f32(raw.x); x[1] = high_f32(raw.x); x[2] = low_f32(raw.y); x[3] = high_f32(raw.y);
    x[4] = low_f32(raw.z); x[5] = high_f32(raw.z); x[6] = low_f32(raw.w); x[7] = high_f32(raw.w);
}

// Eight values of a row: x of the product, w and a of the other matrices.
template <int KIND>
__device__ __forceinline__ void finish(const After& f, u64 row, int column, float (&x)[8], const float (&w)[8], const float (&a)[8], float (&sum)[8]) {
    float y[8], z[8], r[8];
    #pragma unroll
    for (int j = 0; j < 8; j++) {
        float slope;
        if constexpr (KIND == NOTHING || KIND == BIAS) y[j] = x[j];
        if constexpr (KIND == GELU) y[j] = gelu(x[j]);
        if constexpr (KIND == GELU_KEPT) y[j] = gelu(x[j], z[j]);
        if constexpr (KIND == ADD) y[j] = x[j] + w[j];
        if constexpr (KIND == TIMES || KIND == TIMES_TWO) y[j] = x[j] * w[j];
        if constexpr (KIND == TIMES) sum[j] += y[j];
        if constexpr (KIND == TIMES_TWO) z[j] = x[j] * a[j];
        if constexpr (KIND >= GATE_GELU) {
            r[j] = KIND == GATE_GELU || KIND == GATE_GELU_KEPT ? gelu(x[j], slope) : silu(x[j], slope);
            y[j] = r[j] * w[j];
            z[j] = slope * w[j];
        }
    }
    store8(f.out + row * f.out_stride + column, y);
    if constexpr (has_second<KIND>()) store8(f.second + row * f.second_stride + column, z);
    if constexpr (KIND >= GATE_GELU_KEPT) store8(f.third + row * f.third_stride + column, r);
}

// What follows for a tile is done in batches of rows, BATCHES for the 64 rows of a warpgroup; a warp has every third row, eight
// columns a lane. Other matrices are asked for a batch ahead, so that their way from memory is not waited for.
template <int KIND> __device__ constexpr int rows_at_once() { return KIND == ADD || KIND == TIMES ? 8 : 4; }
template <int KIND> __device__ constexpr int batches() { return 24 / rows_at_once<KIND>(); }

template <int KIND>
struct Others {
    uint4 with[rows_at_once<KIND>()], also[rows_at_once<KIND>()];
    // Those of a batch of the tile at `row` and `column`.
    __device__ __forceinline__ void ask(const After& f, int batch, int row, int column, int m, int n) {
        if constexpr (!has_with<KIND>()) return;
        int half = batch / batches<KIND>(), first = batch % batches<KIND>() * rows_at_once<KIND>();
        int warp = (threadIdx.x >> 5) - 1, at = column + (threadIdx.x & 31) * 8;
        #pragma unroll
        for (int i = 0; i < rows_at_once<KIND>(); i++) {
            int in = (first + i) * WRITERS + warp, line = row + half * 64 + in;
            bool there = at < n && in < 64 && line < m;
            with[i] = fetch16(f.with + (u64)line * f.with_stride + at, there);
            if constexpr (KIND == TIMES_TWO) also[i] = fetch16(f.also + (u64)line * f.also_stride + at, there);
        }
    }
};

template <int KIND>
__device__ __forceinline__ void follow(
    const After& f, const Others<KIND>& others, int batch, u32 left, int row, int column, int m, int n, const float (&bias)[8], float (&sum)[8]) {
    int half = batch / batches<KIND>(), first = batch % batches<KIND>() * rows_at_once<KIND>();
    int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) - 1, at = column + lane * 8;
    u32 own = left + half * HALF_BYTES + (lane >> 3) * 64 * 128;
    #pragma unroll
    for (int i = 0; i < rows_at_once<KIND>(); i++) {
        int in = (first + i) * WRITERS + warp, line = row + half * 64 + in;
        if (in >= 64 || line >= m || at >= n) continue;
        float x[8], w[8], a[8];
        unpack(x, load16(own + tile_offset<64>(in, lane & 7)));
        #pragma unroll
        for (int j = 0; j < 8; j++) x[j] += bias[j];
        if constexpr (has_with<KIND>()) unpack(w, others.with[i]);
        if constexpr (KIND == TIMES_TWO) unpack(a, others.also[i]);
        finish<KIND>(f, line, at, x, w, a, sum);
    }
}

// ---- a language model's head
//
// Logits are the product times `inverse`; they are never written. Each row has a token.

#define SCORE 1  // of a tile's columns in each row: the largest logit, Σ e^(logit − largest) and the same times logit − largest
#define SLOPES 2 // slope · inverse · ([column is the token] − e^(logit − lse)) goes on in the place of sums

struct Head {
    float4* parts;        // [tiles of columns, m]
    float* chosen;        // [m]: the token's logit
    const u32* tokens;    // [m]
    const float* lse;     // [m]: ln Σ e^logit
    const float* slopes;  // [m]
    float inverse;
};

// c: a warp's 16 rows and all columns of a tile.
__device__ __forceinline__ void score(float (&c)[128], const Head& head, int row, int column, int m, int n) {
    int lane = threadIdx.x & 31, pair = column + (lane & 3) * 2;
    if (column + TILE_COLUMNS > n) {
        #pragma unroll
        for (int i = 0; i < 128; i++) {
            if (pair + (i >> 2) * 8 + (i & 1) >= n) c[i] = -1e30f;
        }
    }
    float factor = head.inverse * LOG2E;
    #pragma unroll
    for (int h = 0; h < 2; h++) {
        int line = row + h * 8, token = line < m ? (int)head.tokens[line] - pair : -1;
        float most = -INFINITE, sum = 0.0f, weighed = 0.0f, chosen = 0.0f;
        #pragma unroll
        for (int j = 0; j < 64; j++) {
            float x = c[(j >> 1) * 4 + h * 2 + (j & 1)];
            most = fmaxf(most, x);
            if (token == (j >> 1) * 8 + (j & 1)) chosen = x;
        }
        if (token >= 0 && token < TILE_COLUMNS && (token & 7) < 2) head.chosen[line] = chosen * head.inverse;
        most = fmaxf(most, __shfl_xor_sync(FULL_MASK, most, 1));
        most = fmaxf(most, __shfl_xor_sync(FULL_MASK, most, 2));
        #pragma unroll
        for (int j = 0; j < 64; j++) {
            float below = (c[(j >> 1) * 4 + h * 2 + (j & 1)] - most) * factor, share = exp2_fast(below);
            sum += share;
            weighed = fmaf(share, below, weighed);
        }
        #pragma unroll
        for (int bit = 1; bit < 4; bit *= 2) {
            sum += __shfl_xor_sync(FULL_MASK, sum, bit);
            weighed += __shfl_xor_sync(FULL_MASK, weighed, bit);
        }
        if ((lane & 3) == 0 && line < m) {
            head.parts[(u64)(column / TILE_COLUMNS) * m + line] = make_float4(most * head.inverse, sum, weighed / LOG2E, 0.0f);
        }
    }
}

__device__ __forceinline__ void slopes(float (&c)[128], const Head& head, int row, int column, int m) {
    int lane = threadIdx.x & 31, pair = column + (lane & 3) * 2;
    #pragma unroll
    for (int h = 0; h < 2; h++) {
        int line = row + h * 8, token = line < m ? (int)head.tokens[line] : -1;
        float lse = line < m ? head.lse[line] : 0.0f, slope = line < m ? head.slopes[line] * head.inverse : 0.0f;
        #pragma unroll
        for (int j = 0; j < 64; j++) {
            float& x = c[(j >> 1) * 4 + h * 2 + (j & 1)];
            int at = pair + (j >> 1) * 8 + (j & 1);
            x = slope * ((at == token ? 1.0f : 0.0f) - exp_fast(x * head.inverse - lse));
        }
    }
}

__device__ __forceinline__ void store_matrices(u32 to, u32 a, u32 b, u32 c, u32 d) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" :: "r"(to), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

template <int KIND, int PLAIN, int HEAD>
__device__ __forceinline__ void product(const Map& map_a, const Map& map_b, const After& f, const Head& head, int m, int n, int k) {
    extern __shared__ __align__(1024) unsigned char shared[];
    u32 base = shared_address(shared), left = base + STAGES * STAGE_BYTES, full = left + 2 * HALF_BYTES, empty = full + STAGES * 8;
    u32 ready = empty + STAGES * 8, taken = ready + 16;
    int rank = blockIdx.x & 1, group = __shfl_sync(FULL_MASK, threadIdx.x >> 7, 0);
    int down = (m + 2 * TILE_ROWS - 1) / (2 * TILE_ROWS), across = (n + TILE_COLUMNS - 1) / TILE_COLUMNS, depth = (k + DEPTH - 1) / DEPTH;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            start_barrier(full + i * 8, 1);
            start_barrier(empty + i * 8, 4);
        }
        for (int i = 0; i < 2; i++) {
            start_barrier(ready + i * 8, 128);
            start_barrier(taken + i * 8, WRITERS * 32);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    meet_pair();
    auto place = [&](int tile, int& row, int& column) {
        int set = GROUP * across, first = tile / set * GROUP, high = min(down - first, GROUP), in = tile % set;
        row = ((first + in % high) * 2 + rank) * TILE_ROWS;
        column = in / high * TILE_COLUMNS;
    };
    if (group > 0) {
        int stage = 0, phase = 0, given = 1, half = group - 1, lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3;
        bool speaks = (threadIdx.x & 127) < 2; // a thread for each block of the pair
        for (int tile = blockIdx.x >> 1; tile < down * across; tile += gridDim.x >> 1) {
            int last = 0;
            float c[128];
            for (int step = 0; step < depth; step++) {
                await(full + stage * 8, phase);
                u32 at = base + stage * STAGE_BYTES;
                u64 a = describe(at + half * (A_BYTES / 2), 16), b = describe(at + A_BYTES, PLAIN ? B_BYTES / 4 : 16);
                begin_products();
                #pragma unroll
                for (int i = 0; i < DEPTH / 16; i++) multiply<PLAIN>(c, a + i * 2, b + i * (PLAIN ? 128 : 2), step + i > 0);
                commit_products();
                if (step > 0) {
                    wait_products<1>();
                    if (speaks) arrive_at(empty + last * 8, threadIdx.x & 1);
                }
                last = stage;
                if (++stage == STAGES) { stage = 0; phase ^= 1; }
            }
            wait_products<0>();
            settle(c);
            if (speaks) arrive_at(empty + last * 8, threadIdx.x & 1);
            if constexpr (HEAD != 0) {
                int row, column;
                place(tile, row, column);
                row += half * 64 + warp * 16 + (lane >> 2);
                if constexpr (HEAD == SCORE) {
                    score(c, head, row, column, m, n);
                    continue;
                }
                slopes(c, head, row, column, m);
            }
            await(taken + half * 8, given);
            given ^= 1;
            // Columns in four tiles of 64, so that eight rows lie in different banks.
            int line = warp * 16 + (lane & 15);
            u32 to = left + half * HALF_BYTES;
            #pragma unroll
            for (int i = 0; i < 16; i++) {
                float* x = c + i * 8;
                store_matrices(to + (i >> 2) * 64 * 128 + tile_offset<64>(line, (i & 3) * 2 + (lane >> 4)),
                    pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
            }
            arrive(ready + half * 8);
        }
    } else {
        if (threadIdx.x < 32) {
            if (threadIdx.x == 0) {
                int stage = 0, phase = 1;
                for (int tile = blockIdx.x >> 1; tile < down * across; tile += gridDim.x >> 1) {
                    int row, column;
                    place(tile, row, column);
                    for (int step = 0; step < depth; step++) {
                        await(empty + stage * 8, phase);
                        u32 a = base + stage * STAGE_BYTES, b = a + A_BYTES, barrier = full + stage * 8;
                        expect_bytes(barrier, STAGE_BYTES);
                        fetch_tile(a, &map_a, step * DEPTH, row, barrier);
                        if (PLAIN) {
                            fetch_for_both(b + rank * (B_BYTES / 2), &map_b, column + rank * 128, step * DEPTH, barrier);
                            fetch_for_both(b + rank * (B_BYTES / 2) + B_BYTES / 4, &map_b, column + rank * 128 + 64, step * DEPTH, barrier);
                        } else {
                            fetch_for_both(b + rank * (B_BYTES / 2), &map_b, step * DEPTH, column + rank * 128, barrier);
                        }
                        if (++stage == STAGES) { stage = 0; phase ^= 1; }
                    }
                }
            }
        } else {
            int phase = 0, lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) - 1, tile = blockIdx.x >> 1, row, column;
            if (HEAD == SCORE) tile = down * across; // they have nothing to do
            place(tile, row, column);
            Others<KIND> even, odd;
            if (tile < down * across) even.ask(f, 0, row, column, m, n);
            while (tile < down * across) {
                int at = column + lane * 8, next_row, next_column;
                tile += gridDim.x >> 1;
                bool more = tile < down * across;
                place(tile, next_row, next_column);
                float bias[8] = {}, sum[8] = {};
                if ((KIND == BIAS || KIND == GELU || KIND == GELU_KEPT) && at < n) load8(f.bias + at, bias);
                if (KIND == ADD && f.added && at < n) load8(f.added + at, bias);
                auto turn = [&](int batch, const Others<KIND>& others) {
                    constexpr int EACH = batches<KIND>();
                    if (batch % EACH == 0) await(ready + batch / EACH * 8, phase);
                    follow<KIND>(f, others, batch, left, row, column, m, n, bias, sum);
                    if (batch % EACH == EACH - 1) arrive(taken + batch / EACH * 8);
                };
                #pragma unroll 1
                for (int batch = 0; batch < 2 * batches<KIND>(); batch += 2) {
                    odd.ask(f, batch + 1, row, column, m, n);
                    turn(batch, even);
                    if (batch + 2 < 2 * batches<KIND>()) even.ask(f, batch + 2, row, column, m, n);
                    else if (more) even.ask(f, 0, next_row, next_column, m, n);
                    turn(batch + 1, odd);
                }
                if (KIND == TIMES && at < n && row < m) store8(f.sums + (u64)(row / TILE_ROWS * WRITERS + warp) * n + at, sum);
                row = next_row;
                column = next_column;
                phase ^= 1;
            }
        }
    }
    meet_pair();
}

#define PRODUCT(NAME, KIND, PLAIN)                                                                                               \
    extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1) NAME(                                        \
        const __grid_constant__ Map a, const __grid_constant__ Map b, bf16* out, bf16* second, bf16* third, const void* bias,    \
        const bf16* with, const bf16* also, float* sums, int out_stride, int second_stride, int third_stride, int with_stride,  \
        int also_stride, int m, int n, int k) {                                                                                  \
        after_others();                                                                                                          \
        const After after = {out, second, third, (const bf16*)bias, (const float*)bias, with, also, sums, out_stride, second_stride, third_stride, with_stride, also_stride}; \
        product<KIND, PLAIN, 0>(a, b, after, Head{}, m, n, k);                                                                              \
    }

PRODUCT(product_bias, BIAS, 0)
PRODUCT(product_gelu, GELU, 0)
PRODUCT(product_gelu_kept, GELU_KEPT, 0)
PRODUCT(product_add, ADD, 0)
PRODUCT(product_plain_add, ADD, 1)
PRODUCT(product_times, TIMES, 1)
PRODUCT(product_times_two, TIMES_TWO, 1)
PRODUCT(product_gate_gelu, GATE_GELU, 0)
PRODUCT(product_gate_silu, GATE_SILU, 0)
PRODUCT(product_gate_gelu_kept, GATE_GELU_KEPT, 0)
PRODUCT(product_gate_silu_kept, GATE_SILU_KEPT, 0)

// parts [tiles of 256 columns, m] and chosen [m] of every row's logits.
extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1) product_score(
    const __grid_constant__ Map a, const __grid_constant__ Map b, float4* parts, float* chosen, const u32* tokens, float inverse, int m, int n,
    int k) {
    after_others();
    const Head head = {parts, chosen, tokens, nullptr, nullptr, inverse};
    product<NOTHING, 0, SCORE>(a, b, After{}, head, m, n, k);
}

// out [m, n]: the gradient of Σ slope · log-probability of a row's token by the product.
extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1) product_score_backward(
    const __grid_constant__ Map a, const __grid_constant__ Map b, bf16* out, int out_stride, const float* lse, const u32* tokens,
    const float* slopes, float inverse, int m, int n, int k) {
    after_others();
    After after = {};
    after.out = out;
    after.out_stride = out_stride;
    const Head head = {nullptr, nullptr, tokens, lse, slopes, inverse};
    product<NOTHING, 0, SLOPES>(a, b, after, head, m, n, k);
}

// Log-probabilities, entropies and lse [m] of what product_score left. Grid: m; block: 128.
extern "C" __global__ void __launch_bounds__(128) join_scores(
    float* logprobs, float* entropies, float* lse, const float4* parts, const float* chosen, int tiles, int m) {
    after_others();
    __shared__ float shared[12];
    int row = blockIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float most = -INFINITE, sum = 0.0f, weighed = 0.0f;
    for (int tile = threadIdx.x; tile < tiles; tile += 128) most = fmaxf(most, parts[(u64)tile * m + row].x);
    most = warp_max(most);
    if (lane == 0) shared[warp] = most;
    __syncthreads();
    most = fmaxf(fmaxf(shared[0], shared[1]), fmaxf(shared[2], shared[3]));
    for (int tile = threadIdx.x; tile < tiles; tile += 128) {
        float4 part = parts[(u64)tile * m + row];
        float factor = exp_fast(part.x - most);
        sum += part.y * factor;
        weighed += (part.z + part.y * (part.x - most)) * factor;
    }
    sum = warp_sum(sum);
    weighed = warp_sum(weighed);
    if (lane == 0) {
        shared[4 + warp] = sum;
        shared[8 + warp] = weighed;
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    sum = shared[4] + shared[5] + shared[6] + shared[7];
    weighed = shared[8] + shared[9] + shared[10] + shared[11];
    float total = most + logf(sum);
    lse[row] = total;
    logprobs[row] = chosen[row] - total;
    entropies[row] = logf(sum) - weighed / sum;
}
