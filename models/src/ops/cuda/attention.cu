// Softmax attention over packed rows, forward and backward (the tiling of Dao, 2023), without padding.
//
// Queries [tokens, heads, dim], keys and values [tokens, kv_heads, dim] in bf16; token t of x stands at x + t · x_stride, so
// that they may be parts of one qkv matrix. heads / kv_heads query heads in a row share a key head.
//
// `segments`: int [segments, 6] of start, len, prefix_start, prefix_len, first_child, children. A segment's tokens are rows
// start..start + len. A query sees all of rows prefix_start..prefix_start + prefix_len and of its own segment the rows up to
// its own (causal) or all. The segments first_child..first_child + children have this one as their prefix. A prompt
// with responses is one segment without a prefix and one child for each response; a plain sequence is one segment.
// `tiles`: int [tiles, 2] of segment, index: every 64 rows of every segment once; best with the largest index first.
//
// lse [heads, tokens]: ln Σ e^score of every query, left by the forward pass for the backward pass.
// Everything is summed in a fixed order: equal inputs give equal bits.

#define ROWS 64
#define THREADS 128

// Where a lane reads tiles that it has the shared address of. `Rows`: A by rows, or B by its own rows (transposed);
// `Columns`: B whose columns are the tile's rows. Both XOR the piece in, so that addresses differ by constants.
template <int DIM>
__device__ __forceinline__ u32 lane_rows(u32 tile, int first_row) {
    int lane = threadIdx.x & 31, row = first_row + (lane & 15);
    return tile + row * DIM * 2 + (((lane >> 4) ^ (row & 7)) << 4);
}

template <int DIM>
__device__ __forceinline__ u32 lane_columns(u32 tile) {
    int lane = threadIdx.x & 31, row = ((lane >> 4) << 3) + (lane & 7);
    return tile + row * DIM * 2 + ((((lane >> 3) & 1) ^ (row & 7)) << 4);
}

// Fetches rows first.. of x (at most `left` of them, zeros beyond) to a tile of COUNT rows.
template <int DIM, int COUNT, int BLOCK>
__device__ __forceinline__ void fetch_rows(u32 tile, const bf16* x, int stride, i64 first, int left) {
    constexpr int PIECES = DIM / 8;
    static_assert(COUNT * PIECES % BLOCK == 0, "a tile is whole rounds of the block");
    #pragma unroll
    for (int i = 0; i < COUNT * PIECES / BLOCK; i++) {
        int at = i * BLOCK + threadIdx.x, row = at / PIECES, piece = at % PIECES;
        bool valid = row < left;
        copy16(tile + tile_offset<DIM>(row, piece), x + (valid ? (first + row) * stride + piece * 8 : 0), valid);
    }
}

__device__ __forceinline__ void copy4(u32 to, const void* from, bool valid) {
    int bytes = valid ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" :: "r"(to), "l"(__cvta_generic_to_global(from)), "r"(bytes) : "memory");
}

// s += rows of a (16 · BANDS of tile a) times rows of b (COUNT of tile b), over DIM.
template <int DIM, int COUNT, int BANDS>
__device__ __forceinline__ void rows_by_rows(float (&s)[BANDS][COUNT / 8][4], u32 a_lane, u32 b_lane) {
    #pragma unroll
    for (int k = 0; k < DIM / 16; k++) {
        u32 a[BANDS][4];
        #pragma unroll
        for (int m = 0; m < BANDS; m++) load_matrices(a[m], (a_lane ^ (k * 32)) + m * 16 * DIM * 2);
        #pragma unroll
        for (int n = 0; n < COUNT / 16; n++) {
            u32 b[4];
            load_matrices(b, (b_lane ^ (k * 32)) + n * 16 * DIM * 2);
            #pragma unroll
            for (int m = 0; m < BANDS; m++) {
                mma(s[m][2 * n], a[m], b[0], b[1]);
                mma(s[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// The values that a warp holds as C, 16 × 16 of them, as A of a next product.
__device__ __forceinline__ void as_a(u32 (&a)[4], const float (&low)[4], const float (&high)[4]) {
    a[0] = pack_bf16(low[0], low[1]);
    a[1] = pack_bf16(low[2], low[3]);
    a[2] = pack_bf16(high[0], high[1]);
    a[3] = pack_bf16(high[2], high[3]);
}

// acc += p (16 · BANDS × COUNT, held as C) times the COUNT rows of tile b.
template <int DIM, int COUNT, int BANDS>
__device__ __forceinline__ void scores_by_rows(float (&acc)[BANDS][DIM / 8][4], const float (&p)[BANDS][COUNT / 8][4], u32 b_lane) {
    #pragma unroll
    for (int k = 0; k < COUNT / 16; k++) {
        u32 a[BANDS][4];
        #pragma unroll
        for (int m = 0; m < BANDS; m++) as_a(a[m], p[m][2 * k], p[m][2 * k + 1]);
        #pragma unroll
        for (int n = 0; n < DIM / 16; n++) {
            u32 b[4];
            load_matrices_transposed(b, (b_lane ^ (n * 32)) + k * 16 * DIM * 2);
            #pragma unroll
            for (int m = 0; m < BANDS; m++) {
                mma(acc[m][2 * n], a[m], b[0], b[1]);
                mma(acc[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

template <int BANDS, int N>
__device__ __forceinline__ void clear(float (&x)[BANDS][N][4]) {
    #pragma unroll
    for (int m = 0; m < BANDS; m++) {
        #pragma unroll
        for (int i = 0; i < N; i++) {
            #pragma unroll
            for (int j = 0; j < 4; j++) x[m][i][j] = 0.0f;
        }
    }
}

// ---- forward
//
// A warp has 16 · BANDS queries. With two bands a block has the rows of two tiles: those of an odd tile come with the even one's.

template <int DIM, int KEYS, int BANDS>
__device__ __forceinline__ void attend(
    bf16* out, float* lse, const bf16* q, const bf16* k, const bf16* v, int q_stride, int k_stride, int v_stride,
    const int* segments, const int* tiles, int tokens, int heads, int kv_heads, int causal, float scale) {
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int TILE = KEYS * DIM * 2, BLOCK_ROWS = ROWS * BANDS;
    int head = blockIdx.x, kv_head = head / (heads / kv_heads), index = tiles[blockIdx.y * 2 + 1];
    if (index % BANDS != 0) return;
    const int* segment = segments + tiles[blockIdx.y * 2] * 6;
    int first_query = index * ROWS, len = segment[LEN];
    i64 start = segment[START];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, group = lane >> 2, pair = (lane & 3) * 2;
    q += head * DIM;
    k += kv_head * DIM;
    v += kv_head * DIM;
    KeyTiles keys(segment, first_query + BLOCK_ROWS, causal, KEYS);
    u32 queries = shared_address(shared), ring = queries + BLOCK_ROWS * DIM * 2;
    auto fetch = [&](int tile) {
        u32 to = ring + (tile & 1) * 2 * TILE;
        fetch_rows<DIM, KEYS, THREADS>(to, k, k_stride, keys.row(tile, KEYS), keys.left(tile, KEYS));
        fetch_rows<DIM, KEYS, THREADS>(to + TILE, v, v_stride, keys.row(tile, KEYS), keys.left(tile, KEYS));
        commit_copies();
    };
    fetch_rows<DIM, BLOCK_ROWS, THREADS>(queries, q, q_stride, start + first_query, len - first_query);
    fetch(0);

    float mixed[BANDS][DIM / 8][4], most[BANDS][2], sum[BANDS][2];
    clear(mixed);
    #pragma unroll
    for (int m = 0; m < BANDS; m++) {
        most[m][0] = most[m][1] = -INFINITE;
        sum[m][0] = sum[m][1] = 0.0f;
    }
    float factor = scale * LOG2E;
    int query = first_query + warp * 16 * BANDS + group;
    for (int tile = 0; tile < keys.count; tile++) {
        wait_copies<0>();
        __syncthreads();
        if (tile + 1 < keys.count) fetch(tile + 1);
        u32 k_tile = ring + (tile & 1) * 2 * TILE, v_tile = k_tile + TILE;
        float s[BANDS][KEYS / 8][4];
        clear(s);
        rows_by_rows<DIM, KEYS, BANDS>(s, lane_rows<DIM>(queries, warp * 16 * BANDS), lane_columns<DIM>(k_tile));
        int first = keys.first(tile, KEYS), left = keys.left(tile, KEYS);
        bool diagonal = causal && !keys.in_prefix(tile) && first + KEYS > first_query;
        if (left < KEYS || diagonal) {
            #pragma unroll
            for (int m = 0; m < BANDS; m++) {
                #pragma unroll
                for (int n = 0; n < KEYS / 8; n++) {
                    #pragma unroll
                    for (int j = 0; j < 4; j++) {
                        int key = n * 8 + pair + (j & 1);
                        if (key >= left || (diagonal && first + key > query + m * 16 + (j >> 1) * 8)) s[m][n][j] = -INFINITE;
                    }
                }
            }
        }
        #pragma unroll
        for (int m = 0; m < BANDS; m++) {
            #pragma unroll
            for (int h = 0; h < 2; h++) {
                float top = most[m][h];
                #pragma unroll
                for (int n = 0; n < KEYS / 8; n++) top = fmaxf(top, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
                top = fmaxf(top, __shfl_xor_sync(FULL_MASK, top, 1));
                top = fmaxf(top, __shfl_xor_sync(FULL_MASK, top, 2));
                float shrink = exp2_fast((most[m][h] - top) * factor), base = top * factor;
                most[m][h] = top;
                sum[m][h] *= shrink;
                #pragma unroll
                for (int n = 0; n < KEYS / 8; n++) {
                    s[m][n][2 * h] = exp2_fast(s[m][n][2 * h] * factor - base);
                    s[m][n][2 * h + 1] = exp2_fast(s[m][n][2 * h + 1] * factor - base);
                    sum[m][h] += s[m][n][2 * h] + s[m][n][2 * h + 1];
                }
                #pragma unroll
                for (int n = 0; n < DIM / 8; n++) {
                    mixed[m][n][2 * h] *= shrink;
                    mixed[m][n][2 * h + 1] *= shrink;
                }
            }
        }
        scores_by_rows<DIM, KEYS, BANDS>(mixed, s, lane_rows<DIM>(v_tile, 0));
    }
    #pragma unroll
    for (int m = 0; m < BANDS; m++) {
        #pragma unroll
        for (int h = 0; h < 2; h++) {
            float total = sum[m][h];
            total += __shfl_xor_sync(FULL_MASK, total, 1);
            total += __shfl_xor_sync(FULL_MASK, total, 2);
            int own = query + m * 16 + h * 8;
            if (own < len) {
                float share = 1.0f / total;
                bf16* to = out + ((start + own) * heads + head) * DIM + pair;
                #pragma unroll
                for (int n = 0; n < DIM / 8; n++) *(u32*)(to + n * 8) = pack_bf16(mixed[m][n][2 * h] * share, mixed[m][n][2 * h + 1] * share);
                if (lse && pair == 0) lse[(i64)head * tokens + start + own] = most[m][h] * scale + logf(total);
            }
        }
    }
}

// out [tokens, heads · dim]; lse may be null. scale multiplies the scores.
// Grid: (heads, tiles); block: 128; dynamic shared memory: 49152 bytes for dim 64, 98304 for 128 and 256.
#define ATTEND(DIM, KEYS, BANDS)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) attend_##DIM(                                                    \
        bf16* out, float* lse, const bf16* q, const bf16* k, const bf16* v, int q_stride, int k_stride, int v_stride,       \
        const int* segments, const int* tiles, int tokens, int heads, int kv_heads, int causal, float scale) {              \
        attend<DIM, KEYS, BANDS>(out, lse, q, k, v, q_stride, k_stride, v_stride, segments, tiles, tokens, heads, kv_heads, causal, scale); \
    }

ATTEND(64, 64, 2)
ATTEND(128, 64, 2)
ATTEND(256, 32, 1)

// ---- backward: deltas, then dq, then dk and dv

// deltas [heads, tokens]: d_out · out of every token and head; both bf16 [tokens, heads · dim].
// dim % 8 == 0. Grid: (ceil(heads / 4), tokens); block: 128. Where dim is 64 or 128 a warp takes 4 or 2 heads, and the
// blocks beyond find nothing to do.
extern "C" __global__ void attention_deltas(float* deltas, const bf16* d_out, const bf16* out, int tokens, int heads, int dim) {
    int lanes = dim == 64 ? 8 : dim == 128 ? 16 : 32, lane = threadIdx.x & (lanes - 1);
    int head = (blockIdx.x * 128 + threadIdx.x) / lanes;
    if (blockIdx.x * 128 / lanes >= heads) return;
    i64 at = ((i64)blockIdx.y * heads + head) * dim;
    float sum = 0.0f;
    for (int i = lane * 8; i < dim && head < heads; i += lanes * 8) {
        float a[8], b[8];
        load8(d_out + at + i, a);
        load8(out + at + i, b);
        #pragma unroll
        for (int j = 0; j < 8; j++) sum += a[j] * b[j];
    }
    for (int step = lanes / 2; step > 0; step >>= 1) sum += __shfl_xor_sync(FULL_MASK, sum, step);
    if (lane == 0 && head < heads) deltas[(i64)head * tokens + blockIdx.y] = sum;
}

template <int DIM, int KEYS, int STAGES, int BANDS>
__device__ __forceinline__ void attend_backward_q(
    bf16* dq, const bf16* d_out, const float* lse, const float* deltas, const bf16* q, const bf16* k, const bf16* v, int dq_stride,
    int q_stride, int k_stride, int v_stride, const int* segments, const int* tiles, int tokens, int heads, int kv_heads,
    int causal, float scale) {
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int TILE = KEYS * DIM * 2, BLOCK_ROWS = ROWS * BANDS;
    int head = blockIdx.x, kv_head = head / (heads / kv_heads), index = tiles[blockIdx.y * 2 + 1];
    if (index % BANDS != 0) return;
    const int* segment = segments + tiles[blockIdx.y * 2] * 6;
    int first_query = index * ROWS, len = segment[LEN];
    i64 start = segment[START];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, group = lane >> 2, pair = (lane & 3) * 2;
    k += kv_head * DIM;
    v += kv_head * DIM;
    KeyTiles keys(segment, first_query + BLOCK_ROWS, causal, KEYS);
    u32 queries = shared_address(shared), outs = queries + BLOCK_ROWS * DIM * 2, ring = outs + BLOCK_ROWS * DIM * 2;
    auto fetch = [&](int tile) {
        u32 to = ring + (tile % STAGES) * 2 * TILE;
        fetch_rows<DIM, KEYS, THREADS>(to, k, k_stride, keys.row(tile, KEYS), keys.left(tile, KEYS));
        fetch_rows<DIM, KEYS, THREADS>(to + TILE, v, v_stride, keys.row(tile, KEYS), keys.left(tile, KEYS));
        commit_copies();
    };
    fetch_rows<DIM, BLOCK_ROWS, THREADS>(queries, q + head * DIM, q_stride, start + first_query, len - first_query);
    fetch_rows<DIM, BLOCK_ROWS, THREADS>(outs, d_out + head * DIM, heads * DIM, start + first_query, len - first_query);
    fetch(0);
    float grad[BANDS][DIM / 8][4], base[BANDS][2], delta[BANDS][2];
    clear(grad);
    int query = first_query + warp * 16 * BANDS + group;
    #pragma unroll
    for (int m = 0; m < BANDS; m++) {
        #pragma unroll
        for (int h = 0; h < 2; h++) {
            int own = query + m * 16 + h * 8;
            i64 at = (i64)head * tokens + start + own;
            base[m][h] = own < len ? lse[at] * LOG2E : 0.0f;
            delta[m][h] = own < len ? deltas[at] : 0.0f;
        }
    }
    float factor = scale * LOG2E;
    for (int tile = 0; tile < keys.count; tile++) {
        if (STAGES == 1 && tile > 0) {
            __syncthreads();
            fetch(tile);
        }
        wait_copies<0>();
        __syncthreads();
        if (STAGES > 1 && tile + 1 < keys.count) fetch(tile + 1);
        u32 k_tile = ring + (tile % STAGES) * 2 * TILE, v_tile = k_tile + TILE;
        float s[BANDS][KEYS / 8][4], dp[BANDS][KEYS / 8][4];
        clear(s);
        clear(dp);
        rows_by_rows<DIM, KEYS, BANDS>(s, lane_rows<DIM>(queries, warp * 16 * BANDS), lane_columns<DIM>(k_tile));
        rows_by_rows<DIM, KEYS, BANDS>(dp, lane_rows<DIM>(outs, warp * 16 * BANDS), lane_columns<DIM>(v_tile));
        int first = keys.first(tile, KEYS), left = keys.left(tile, KEYS);
        bool diagonal = causal && !keys.in_prefix(tile) && first + KEYS > first_query;
        bool masked = left < KEYS || diagonal;
        #pragma unroll
        for (int m = 0; m < BANDS; m++) {
            #pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
                #pragma unroll
                for (int j = 0; j < 4; j++) {
                    int key = n * 8 + pair + (j & 1);
                    float p = exp2_fast(s[m][n][j] * factor - base[m][j >> 1]);
                    if (masked && (key >= left || (diagonal && first + key > query + m * 16 + (j >> 1) * 8))) p = 0.0f;
                    s[m][n][j] = p * (dp[m][n][j] - delta[m][j >> 1]) * scale;
                }
            }
        }
        scores_by_rows<DIM, KEYS, BANDS>(grad, s, lane_rows<DIM>(k_tile, 0));
    }
    #pragma unroll
    for (int m = 0; m < BANDS; m++) {
        #pragma unroll
        for (int h = 0; h < 2; h++) {
            int own = query + m * 16 + h * 8;
            if (own < len) {
                bf16* to = dq + (start + own) * dq_stride + head * DIM + pair;
                #pragma unroll
                for (int n = 0; n < DIM / 8; n++) *(u32*)(to + n * 8) = pack_bf16(grad[m][n][2 * h], grad[m][n][2 * h + 1]);
            }
        }
    }
}

// dq, its token t at dq + t · dq_stride; d_out bf16 [tokens, heads · dim]; lse and deltas [heads, tokens].
// Grid: (heads, tiles); block: 128; dynamic shared memory: 49152 bytes for dim 64, 98304 for 128 and 256.
#define ATTEND_BACKWARD_Q(DIM, KEYS, STAGES, BANDS)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS) attend_backward_q_##DIM(                                         \
        bf16* dq, const bf16* d_out, const float* lse, const float* deltas, const bf16* q, const bf16* k, const bf16* v,    \
        int dq_stride, int q_stride, int k_stride, int v_stride, const int* segments, const int* tiles, int tokens,         \
        int heads, int kv_heads, int causal, float scale) {                                                                \
        attend_backward_q<DIM, KEYS, STAGES, BANDS>(dq, d_out, lse, deltas, q, k, v, dq_stride, q_stride, k_stride, v_stride,      \
            segments, tiles, tokens, heads, kv_heads, causal, scale);                                                      \
    }

ATTEND_BACKWARD_Q(64, 32, 2, 2)
ATTEND_BACKWARD_Q(128, 64, 2, 1)
ATTEND_BACKWARD_Q(256, 32, 1, 1)

// Sums dk and dv of 64 · BANDS keys over all queries that see them, of `together` query heads. A warp has 16 · BANDS keys; where
// APART, a warp has dv alone or dk alone, for want of registers.
template <int DIM, int QUERIES, int STAGES, bool APART, int BANDS>
__device__ __forceinline__ void attend_backward_kv(
    bf16* dk, bf16* dv, float* dk_parts, float* dv_parts, const bf16* d_out, const float* lse, const float* deltas, const bf16* q,
    const bf16* k, const bf16* v, int dk_stride, int dv_stride, int q_stride, int k_stride, int v_stride, const int* segments,
    const int* tiles, int tokens, int heads, int kv_heads, int together, int causal, float scale) {
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int TILE = QUERIES * DIM * 2, BLOCK = APART ? 2 * THREADS : THREADS, BLOCK_ROWS = ROWS * BANDS;
    int head_group = blockIdx.x, first_head = head_group * together, kv_head = first_head / (heads / kv_heads);
    int place_of_tile = gridDim.y - 1 - blockIdx.y, index = tiles[place_of_tile * 2 + 1];
    if (index % BANDS != 0) return;
    const int* segment = segments + tiles[place_of_tile * 2] * 6;
    int first_key = index * ROWS, len = segment[LEN];
    i64 start = segment[START];
    int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3, group = lane >> 2, pair = (lane & 3) * 2;
    bool for_v = !APART || threadIdx.x < THREADS, for_k = !APART || threadIdx.x >= THREADS;
    u32 key_tile = shared_address(shared), value_tile = key_tile + BLOCK_ROWS * DIM * 2, ring = value_tile + BLOCK_ROWS * DIM * 2;
    u32 numbers = ring + STAGES * 2 * TILE;  // lse and deltas of the queries, [STAGES, 2, QUERIES]
    const float* numbers_at = (const float*)(shared + (numbers - key_tile));

    // The queries: of the own segment from the first that sees a key here, then of every child; for each head.
    int first_own = causal ? first_key / QUERIES : 0, own_tiles = (len + QUERIES - 1) / QUERIES - first_own;
    int first_child = segment[FIRST_CHILD], children = segment[CHILDREN];
    int each = own_tiles;
    for (int c = 0; c < children; c++) each += (segments[(first_child + c) * 6 + LEN] + QUERIES - 1) / QUERIES;
    int count = each * together;
    struct Place { int head, first, left; i64 row; bool own; };
    // Tiles are asked for in order, once to fetch and once to use: each cursor moves by one.
    struct Cursor { int tile, head, child, within; };
    auto place = [&](Cursor& at) {
        Place p;
        p.head = at.head;
        p.own = at.child < 0;
        const int* s = p.own ? segment : segments + (first_child + at.child) * 6;
        p.first = (at.within + (p.own ? first_own : 0)) * QUERIES;
        p.left = s[LEN] - p.first;
        p.row = s[START] + p.first;
        at.within++;
        while (at.head < first_head + together) {
            int tiles_here = at.child < 0 ? own_tiles : (segments[(first_child + at.child) * 6 + LEN] + QUERIES - 1) / QUERIES;
            if (at.within < tiles_here) break;
            at.within = 0;
            if (++at.child == children) {
                at.child = -1;
                at.head++;
            }
        }
        return p;
    };
    Cursor fetched = {0, first_head, -1, 0}, used = fetched;
    auto fetch = [&](int tile) {
        Place p = place(fetched);
        u32 to = ring + (tile % STAGES) * 2 * TILE;
        fetch_rows<DIM, QUERIES, BLOCK>(to, q + p.head * DIM, q_stride, p.row, p.left);
        fetch_rows<DIM, QUERIES, BLOCK>(to + TILE, d_out + p.head * DIM, heads * DIM, p.row, p.left);
        if (threadIdx.x < 2 * QUERIES) {
            int i = threadIdx.x % QUERIES;
            const float* from = threadIdx.x < QUERIES ? lse : deltas;
            bool valid = i < p.left;
            copy4(numbers + ((tile % STAGES) * 2 * QUERIES + threadIdx.x) * 4, from + (valid ? (i64)p.head * tokens + p.row + i : 0), valid);
        }
        commit_copies();
    };
    fetch_rows<DIM, BLOCK_ROWS, BLOCK>(key_tile, k + kv_head * DIM, k_stride, start + first_key, len - first_key);
    fetch_rows<DIM, BLOCK_ROWS, BLOCK>(value_tile, v + kv_head * DIM, v_stride, start + first_key, len - first_key);
    if (count > 0) fetch(0);
    float grad_k[BANDS][DIM / 8][4], grad_v[BANDS][APART ? 1 : DIM / 8][4];
    clear(grad_k);
    clear(grad_v);
    float factor = scale * LOG2E;
    int key = first_key + warp * 16 * BANDS + group;
    for (int tile = 0; tile < count; tile++) {
        if (STAGES == 1 && tile > 0) {
            __syncthreads();
            fetch(tile);
        }
        wait_copies<0>();
        __syncthreads();
        if (STAGES > 1 && tile + 1 < count) fetch(tile + 1);
        Place p = place(used);
        u32 q_tile = ring + (tile % STAGES) * 2 * TILE, out_tile = q_tile + TILE;
        const float* base = numbers_at + (tile % STAGES) * 2 * QUERIES;
        const float* delta = base + QUERIES;
        float s[BANDS][QUERIES / 8][4];
        clear(s);
        rows_by_rows<DIM, QUERIES, BANDS>(s, lane_rows<DIM>(key_tile, warp * 16 * BANDS), lane_columns<DIM>(q_tile));
        bool diagonal = causal && p.own && p.first < first_key + BLOCK_ROWS;
        bool masked = p.left < QUERIES || diagonal;
        #pragma unroll
        for (int m = 0; m < BANDS; m++) {
            #pragma unroll
            for (int n = 0; n < QUERIES / 8; n++) {
                #pragma unroll
                for (int j = 0; j < 4; j++) {
                    int query = n * 8 + pair + (j & 1);
                    float e = exp2_fast(s[m][n][j] * factor - base[query] * LOG2E);
                    if (masked && (query >= p.left || (diagonal && p.first + query < key + m * 16 + (j >> 1) * 8))) e = 0.0f;
                    s[m][n][j] = e;
                }
            }
        }
        if constexpr (APART) {
            if (for_v) scores_by_rows<DIM, QUERIES, BANDS>(grad_k, s, lane_rows<DIM>(out_tile, 0));
        } else {
            scores_by_rows<DIM, QUERIES, BANDS>(grad_v, s, lane_rows<DIM>(out_tile, 0));
        }
        if (for_k) {
            float dp[BANDS][QUERIES / 8][4];
            clear(dp);
            rows_by_rows<DIM, QUERIES, BANDS>(dp, lane_rows<DIM>(value_tile, warp * 16 * BANDS), lane_columns<DIM>(out_tile));
            #pragma unroll
            for (int m = 0; m < BANDS; m++) {
                #pragma unroll
                for (int n = 0; n < QUERIES / 8; n++) {
                    #pragma unroll
                    for (int j = 0; j < 4; j++) s[m][n][j] *= (dp[m][n][j] - delta[n * 8 + pair + (j & 1)]) * scale;
                }
            }
            scores_by_rows<DIM, QUERIES, BANDS>(grad_k, s, lane_rows<DIM>(q_tile, 0));
        }
    }
    auto write = [&](const float (&grad)[BANDS][DIM / 8][4], bf16* to, int stride, float* parts) {
        #pragma unroll
        for (int m = 0; m < BANDS; m++) {
            #pragma unroll
            for (int h = 0; h < 2; h++) {
                int own = key + m * 16 + h * 8;
                if (own >= len) continue;
                if (parts) {
                    float* at = parts + ((start + own) * gridDim.x + head_group) * DIM + pair;
                    #pragma unroll
                    for (int n = 0; n < DIM / 8; n++) *(float2*)(at + n * 8) = make_float2(grad[m][n][2 * h], grad[m][n][2 * h + 1]);
                } else {
                    bf16* at = to + (start + own) * stride + kv_head * DIM + pair;
                    #pragma unroll
                    for (int n = 0; n < DIM / 8; n++) *(u32*)(at + n * 8) = pack_bf16(grad[m][n][2 * h], grad[m][n][2 * h + 1]);
                }
            }
        }
    };
    if constexpr (APART) {
        if (for_v) write(grad_k, dv, dv_stride, dv_parts);
        else write(grad_k, dk, dk_stride, dk_parts);
    } else {
        write(grad_v, dv, dv_stride, dv_parts);
        write(grad_k, dk, dk_stride, dk_parts);
    }
}

// dk and dv. A block sums over `together` query heads, a divisor of heads / kv_heads. Where it is all of them, dk_parts and
// dv_parts are null and dk, dv are written, token t at dk + t · dk_stride; else dk_parts and dv_parts, both f32
// [tokens, heads / together, dim], are written for sum_parts.
// Grid: (heads / together, tiles); block: 128, for dim 256 256; dynamic shared memory: 49664 bytes for dim 64, 66048 for 128,
// for 256 131584 where a block may have 128 KB or more, else 98560.
#define ATTEND_BACKWARD_KV(DIM, QUERIES, STAGES, APART, BANDS)                                                                    \
    extern "C" __global__ void __launch_bounds__(APART ? 2 * THREADS : THREADS) attend_backward_kv_##DIM(                  \
        bf16* dk, bf16* dv, float* dk_parts, float* dv_parts, const bf16* d_out, const float* lse, const float* deltas,     \
        const bf16* q, const bf16* k, const bf16* v, int dk_stride, int dv_stride, int q_stride, int k_stride, int v_stride, \
        const int* segments, const int* tiles, int tokens, int heads, int kv_heads, int together, int causal, float scale) { \
        attend_backward_kv<DIM, QUERIES, STAGES, APART, BANDS>(dk, dv, dk_parts, dv_parts, d_out, lse, deltas, q, k, v, dk_stride, \
            dv_stride, q_stride, k_stride, v_stride, segments, tiles, tokens, heads, kv_heads, together, causal, scale);     \
    }

ATTEND_BACKWARD_KV(64, 32, 2, false, 2)
ATTEND_BACKWARD_KV(128, 32, 2, false, 1)
#if __CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 870 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200
ATTEND_BACKWARD_KV(256, 32, 1, true, 1)
#else
ATTEND_BACKWARD_KV(256, 32, 2, true, 1)
#endif

// out = Σ over parts, in order: parts f32 [tokens, kv_heads, count, dim], out bf16, token t at out + t · stride.
// dim % 8 == 0. Grid: (ceil(kv_heads · dim / 8 / block), tokens); block: any.
extern "C" __global__ void sum_parts(bf16* out, const float* parts, int stride, int kv_heads, int count, int dim) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i >= kv_heads * dim) return;
    i64 token = blockIdx.y;
    const float* from = parts + ((token * kv_heads + i / dim) * count) * dim + i % dim;
    float sum[8] = {};
    for (int c = 0; c < count; c++) {
        float x[8];
        load8(from + (i64)c * dim, x);
        #pragma unroll
        for (int j = 0; j < 8; j++) sum[j] += x[j];
    }
    store8(out + token * stride + i, sum);
}

// ---- any dim up to 256, slowly: a warp a row. Grids and arguments as above, with dim at the end; block: 128.

// Calls f(row of the packed tokens) for every key that a query sees.
template <class F>
__device__ __forceinline__ void for_keys(const int* segment, int query, int causal, F f) {
    for (int i = 0; i < segment[PREFIX_LEN]; i++) f((i64)segment[PREFIX_START] + i);
    int own = causal ? query + 1 : segment[LEN];
    for (int i = 0; i < own; i++) f((i64)segment[START] + i);
}

__device__ __forceinline__ void load_any(float (&x)[8], const bf16* from, int dim) {
    #pragma unroll
    for (int j = 0; j < 8; j++) {
        int i = j * 32 + (threadIdx.x & 31);
        x[j] = i < dim ? to_f32(from[i]) : 0.0f;
    }
}

__device__ __forceinline__ void store_any(bf16* to, const float (&x)[8], int dim) {
    #pragma unroll
    for (int j = 0; j < 8; j++) {
        int i = j * 32 + (threadIdx.x & 31);
        if (i < dim) to[i] = to_bf16(x[j]);
    }
}

__device__ __forceinline__ float dot_any(const float (&a)[8], const float (&b)[8]) {
    float sum = 0.0f;
    #pragma unroll
    for (int j = 0; j < 8; j++) sum += a[j] * b[j];
    return warp_sum(sum);
}

extern "C" __global__ void attend_any(
    bf16* out, float* lse, const bf16* q, const bf16* k, const bf16* v, int q_stride, int k_stride, int v_stride,
    const int* segments, const int* tiles, int tokens, int heads, int kv_heads, int causal, float scale, int dim) {
    int head = blockIdx.x, kv_head = head / (heads / kv_heads), warp = threadIdx.x >> 5;
    const int* segment = segments + tiles[blockIdx.y * 2] * 6;
    int first = tiles[blockIdx.y * 2 + 1] * ROWS;
    for (int query = first + warp; query < min(first + ROWS, segment[LEN]); query += 4) {
        i64 row = (i64)segment[START] + query;
        float own[8], mixed[8] = {}, most = -INFINITE, sum = 0.0f;
        load_any(own, q + row * q_stride + head * dim, dim);
        for_keys(segment, query, causal, [&](i64 key) {
            float x[8];
            load_any(x, k + key * k_stride + kv_head * dim, dim);
            float score = dot_any(own, x) * scale, m = fmaxf(most, score);
            float shrink = exp_fast(most - m), weight = exp_fast(score - m);
            most = m;
            sum = sum * shrink + weight;
            load_any(x, v + key * v_stride + kv_head * dim, dim);
            #pragma unroll
            for (int j = 0; j < 8; j++) mixed[j] = mixed[j] * shrink + weight * x[j];
        });
        #pragma unroll
        for (int j = 0; j < 8; j++) mixed[j] /= sum;
        store_any(out + (row * heads + head) * dim, mixed, dim);
        if (lse && (threadIdx.x & 31) == 0) lse[(i64)head * tokens + row] = most + logf(sum);
    }
}

extern "C" __global__ void attend_backward_q_any(
    bf16* dq, const bf16* d_out, const float* lse, const float* deltas, const bf16* q, const bf16* k, const bf16* v,
    int dq_stride, int q_stride, int k_stride, int v_stride, const int* segments, const int* tiles, int tokens,
    int heads, int kv_heads, int causal, float scale, int dim) {
    int head = blockIdx.x, kv_head = head / (heads / kv_heads), warp = threadIdx.x >> 5;
    const int* segment = segments + tiles[blockIdx.y * 2] * 6;
    int first = tiles[blockIdx.y * 2 + 1] * ROWS;
    for (int query = first + warp; query < min(first + ROWS, segment[LEN]); query += 4) {
        i64 row = (i64)segment[START] + query;
        float own[8], up[8], grad[8] = {}, base = lse[(i64)head * tokens + row], delta = deltas[(i64)head * tokens + row];
        load_any(own, q + row * q_stride + head * dim, dim);
        load_any(up, d_out + (row * heads + head) * dim, dim);
        for_keys(segment, query, causal, [&](i64 key) {
            float x[8], y[8];
            load_any(x, k + key * k_stride + kv_head * dim, dim);
            load_any(y, v + key * v_stride + kv_head * dim, dim);
            float ds = exp_fast(dot_any(own, x) * scale - base) * (dot_any(up, y) - delta) * scale;
            #pragma unroll
            for (int j = 0; j < 8; j++) grad[j] += ds * x[j];
        });
        store_any(dq + row * dq_stride + head * dim, grad, dim);
    }
}

// `together` must be heads / kv_heads, and dk_parts and dv_parts are not used.
extern "C" __global__ void attend_backward_kv_any(
    bf16* dk, bf16* dv, float* dk_parts, float* dv_parts, const bf16* d_out, const float* lse, const float* deltas,
    const bf16* q, const bf16* k, const bf16* v, int dk_stride, int dv_stride, int q_stride, int k_stride, int v_stride,
    const int* segments, const int* tiles, int tokens, int heads, int kv_heads, int together, int causal, float scale, int dim) {
    int kv_head = blockIdx.x, warp = threadIdx.x >> 5;
    const int* segment = segments + tiles[blockIdx.y * 2] * 6;
    int first = tiles[blockIdx.y * 2 + 1] * ROWS;
    for (int key = first + warp; key < min(first + ROWS, segment[LEN]); key += 4) {
        i64 row = (i64)segment[START] + key;
        float own_k[8], own_v[8], grad_k[8] = {}, grad_v[8] = {};
        load_any(own_k, k + row * k_stride + kv_head * dim, dim);
        load_any(own_v, v + row * v_stride + kv_head * dim, dim);
        for (int head = kv_head * together; head < (kv_head + 1) * together; head++) {
            for (int child = -1; child < segment[CHILDREN]; child++) {
                const int* seen_from = child < 0 ? segment : segments + (segment[FIRST_CHILD] + child) * 6;
                for (int query = child < 0 && causal ? key : 0; query < seen_from[LEN]; query++) {
                    i64 at = (i64)seen_from[START] + query;
                    float x[8], y[8];
                    load_any(x, q + at * q_stride + head * dim, dim);
                    load_any(y, d_out + (at * heads + head) * dim, dim);
                    float p = exp_fast(dot_any(own_k, x) * scale - lse[(i64)head * tokens + at]);
                    float ds = p * (dot_any(own_v, y) - deltas[(i64)head * tokens + at]) * scale;
                    #pragma unroll
                    for (int j = 0; j < 8; j++) {
                        grad_v[j] += p * y[j];
                        grad_k[j] += ds * x[j];
                    }
                }
            }
        }
        store_any(dk + row * dk_stride + kv_head * dim, grad_k, dim);
        store_any(dv + row * dv_stride + kv_head * dim, grad_v, dim);
    }
}
