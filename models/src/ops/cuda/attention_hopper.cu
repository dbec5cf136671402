// Softmax attention of whole texts for Hopper (sm_90a alone), by wgmma: the tiling of attention.cu with 64 rows a warpgroup.
//
// Kernels take what those of attention.cu for dim 64 take, `segments`, `tiles` and `lse` among it, and write the same; but
// every query sees its whole segment: `causal` is 0, no segment has a prefix, and every query head has its key head
// (kv_heads = heads, so `together` is 1 and the parts are null). The tiles of a segment stand one after the other. dq comes with
// deltas and before dk and dv. With `first`, each segment's first token alone asks: what goes by queries (q, out, d_out, dq, lse, deltas) has
// a row a segment then, and `tokens` is their number. Gradients come with their sums over each tile's rows: sums [tiles, 3 · heads · dim], those of dq, of dk and of
// dv side by side, or null; those of dq of a tile without queries are not written.
//
// wgmma.cuh stands before this. A tile of 64 rows has 128 bytes a row, and the arrangement of `tile_offset` is the 128-byte swizzle.

#define ROWS 64
#define DIM 64
#define TILE (ROWS * DIM * 2)

// ---- products

// c = the 64 rows of tile a times those of tile b, over DIM.
__device__ __forceinline__ void rows_by_rows(float (&c)[32], u64 a, u64 b) {
    #pragma unroll
    for (int k = 0; k < 4; k++) multiply<0>(c, a + k * 2, b + k * 2, k > 0);
}

__device__ __forceinline__ void rows_by_rows(float (&c)[32], const u32 (&a)[4][4], u64 b) {
    #pragma unroll
    for (int k = 0; k < 4; k++) multiply<0>(c, a[k], b + k * 2, k > 0);
}

// c += p (64 × 64) times the 64 rows of tile b.
__device__ __forceinline__ void scores_by_rows(float (&c)[32], const u32 (&p)[4][4], u64 b) {
    #pragma unroll
    for (int k = 0; k < 4; k++) multiply<1>(c, p[k], b + k * 128, 1);
}

// ---- copies

// A thread's share of fetching rows of x: 16 bytes of every THREADS / 8 rows, from row `first` on. Nothing is read of rows that are
// not there, so that the pointer may run past the end.
template <int THREADS>
struct Rows {
    const bf16* from;
    int stride;
    __device__ __forceinline__ Rows(const bf16* x, int stride, i64 first) : stride(stride) {
        from = x + (first + (threadIdx.x >> 3)) * stride + (threadIdx.x & 7) * 8;
    }
    static __device__ __forceinline__ u32 place() { return tile_offset<DIM>(threadIdx.x >> 3, threadIdx.x & 7); }
    // Fetches the next 64 · COUNT rows to tiles one after the other: at most `left` of them, zeros beyond.
    template <int COUNT>
    __device__ __forceinline__ void fetch(u32 tile, int left) {
        #pragma unroll
        for (int i = 0; i < COUNT * ROWS * 8 / THREADS; i++) {
            copy16(tile + place() + i * (THREADS / 8) * DIM * 2, from, (int)(threadIdx.x >> 3) + i * (THREADS / 8) < left);
            from += THREADS / 8 * stride;
        }
    }
};

// Writes a warp's 16 rows of a product, times low (rows 0..8) and high, to rows of `to`, `left` of them at most, by way of its rows of
// a tile that nothing reads any more.
__device__ __forceinline__ void write_rows(bf16* to, i64 stride, int left, u32 tile, const float (&c)[32], float low, float high) {
    int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3, row = warp * 16 + (lane >> 2);
    #pragma unroll
    for (int n = 0; n < 8; n++) {
        store4(tile + tile_offset<DIM>(row, n) + (lane & 3) * 4, pack_bf16(c[n * 4] * low, c[n * 4 + 1] * low));
        store4(tile + tile_offset<DIM>(row + 8, n) + (lane & 3) * 4, pack_bf16(c[n * 4 + 2] * high, c[n * 4 + 3] * high));
    }
    __syncwarp();
    #pragma unroll
    for (int i = 0; i < 4; i++) {
        int own = warp * 16 + i * 4 + (lane >> 3), piece = lane & 7;
        uint4 x = load16(tile + tile_offset<DIM>(own, piece));
        if (own < left) *(uint4*)(to + own * stride + piece * 8) = x;
    }
}

// The queries of a segment: where its rows begin and how many they are.
struct Askers {
    i64 start;
    int len;
    __device__ __forceinline__ Askers(const int* segment, int number, int first)
        : start(first ? number : segment[START]), len(first ? 1 : segment[LEN]) {}
};

// The warps of a warpgroup wait for each other.
__device__ __forceinline__ void meet(int group) { asm volatile("bar.sync %0, 128;" :: "r"(group + 1) : "memory"); }

// Sums over the rows of a product, times `factor`, of which rows 0..8 and the others of a warp are there or not; by way of 256 f32
// that nothing reads any more.
__device__ __forceinline__ void write_sums(float* to, float* through, int group, const float (&c)[32], bool low, bool high, float factor) {
    int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3;
    #pragma unroll
    for (int n = 0; n < 8; n++) {
        #pragma unroll
        for (int i = 0; i < 2; i++) {
            float sum = (low ? c[n * 4 + i] : 0.0f) + (high ? c[n * 4 + 2 + i] : 0.0f);
            #pragma unroll
            for (int step = 4; step < 32; step *= 2) sum += __shfl_xor_sync(FULL_MASK, sum, step);
            if (lane < 4) through[warp * DIM + n * 8 + lane * 2 + i] = sum;
        }
    }
    meet(group);
    int column = threadIdx.x & 127;
    if (column < DIM) to[column] = (through[column] + through[DIM + column] + through[2 * DIM + column] + through[3 * DIM + column]) * factor;
}

// A block of the forward pass and of dq has the rows of GROUPS tiles, a warpgroup each: those of later tiles come with the first's.
// It reads keys and values through a ring of STAGES tiles of each. Copies of tile t + AHEAD begin when all warpgroups have done
// with tile t - 2, so that products of tile t - 1 may still run.
#define GROUPS 2
#define BLOCK (GROUPS * WARPGROUP)
#define STAGES 4
#define AHEAD 2
// A block of dk and dv has one tile of keys, and a ring of this many tiles of queries and of gradients.
#define KEY_STAGES 2

// out [tokens, heads · dim]; lse may be null. scale multiplies the scores.
// Grid: (heads, tiles); block: 256; dynamic shared memory: 81920 bytes.
extern "C" __global__ void __launch_bounds__(BLOCK, 2) attend_texts_64(
    bf16* out, float* lse, const bf16* q, const bf16* k, const bf16* v, int q_stride, int k_stride, int v_stride,
    const int* segments, const int* tiles, int tokens, int heads, int kv_heads, int causal, float scale, int first_alone) {
    after_others();
    extern __shared__ __align__(1024) unsigned char shared[];
    int head = blockIdx.x, index = tiles[blockIdx.y * 2 + 1];
    const int* segment = segments + tiles[blockIdx.y * 2] * 6;
    int len = segment[LEN], count = (len + ROWS - 1) / ROWS;
    i64 start = segment[START];
    Askers asking(segment, tiles[blockIdx.y * 2], first_alone);
    if (index % GROUPS != 0 || index * ROWS >= asking.len) return;
    int group = __shfl_sync(FULL_MASK, threadIdx.x >> 7, 0), first = index * ROWS, own = first + group * ROWS;
    u32 queries = shared_address(shared), ring = queries + GROUPS * TILE;
    Rows<BLOCK> some_keys(k + head * DIM, k_stride, start), some_values(v + head * DIM, v_stride, start);
    auto key_tile = [&](int tile) { return ring + (tile % STAGES) * 2 * TILE; };
    auto fetch = [&](int tile) {
        if (tile < count) {
            some_keys.fetch<1>(key_tile(tile), len - tile * ROWS);
            some_values.fetch<1>(key_tile(tile) + TILE, len - tile * ROWS);
        }
        commit_copies();
    };
    auto next = [&](int tile) {
        wait_copies<AHEAD - 1>();
        copies_to_products();
        __syncthreads();
        fetch(tile + AHEAD);
    };
    Rows<BLOCK>(q + head * DIM, q_stride, asking.start + first).fetch<GROUPS>(queries, asking.len - first);
    #pragma unroll
    for (int tile = 0; tile < AHEAD; tile++) fetch(tile);
    wait_copies<AHEAD - 1>();
    __syncthreads();
    if (own >= asking.len) {  // no rows: it only helps to fetch
        for (int tile = 0; tile < count; tile++) next(tile);
        return;
    }
    int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3, pair = (lane & 3) * 2;
    queries += group * TILE;
    u32 query[4][4], p[4][4] = {};
    float mixed[32], s[32], most[2] = {-INFINITE, -INFINITE}, sum[2] = {0.0f, 0.0f}, factor = scale * LOG2E;
    clear(mixed);
    #pragma unroll
    for (int n = 0; n < 4; n++) load_matrices(query[n], queries + tile_offset<DIM>(warp * 16 + (lane & 15), n * 2 + (lane >> 4)));
    for (int tile = 0; tile < count; tile++) {
        next(tile);
        // Scores of this tile and the mix of the last one are asked for together: the second runs while the first become weights.
        begin_products();
        rows_by_rows(s, query, describe(key_tile(tile)));
        commit_products();
        if (tile > 0) {
            begin_products();
            scores_by_rows(mixed, p, describe(key_tile(tile - 1) + TILE));
            commit_products();
            wait_products<1>();
        } else {
            wait_products<0>();
        }
        settle(s);
        int left = len - tile * ROWS;
        if (left < ROWS) {
            #pragma unroll
            for (int i = 0; i < 32; i++) {
                if ((i >> 2) * 8 + pair + (i & 1) >= left) s[i] = -INFINITE;
            }
        }
        float top[2] = {most[0], most[1]};
        #pragma unroll
        for (int i = 0; i < 32; i++) top[(i >> 1) & 1] = fmaxf(top[(i >> 1) & 1], s[i]);
        #pragma unroll
        for (int h = 0; h < 2; h++) {
            top[h] = fmaxf(top[h], __shfl_xor_sync(FULL_MASK, top[h], 1));
            top[h] = fmaxf(top[h], __shfl_xor_sync(FULL_MASK, top[h], 2));
        }
        float shrink[2] = {1.0f, 1.0f};
        bool grown = __any_sync(FULL_MASK, fmaxf(top[0] - most[0], top[1] - most[1]) * factor > 0.0f);
        #pragma unroll
        for (int h = 0; h < 2 && grown; h++) {
            shrink[h] = exp2_fast((most[h] - top[h]) * factor);
            most[h] = top[h];
            sum[h] *= shrink[h];
        }
        float base[2] = {most[0] * factor, most[1] * factor};
        #pragma unroll
        for (int i = 0; i < 32; i++) {
            s[i] = exp2_fast(s[i] * factor - base[(i >> 1) & 1]);
            sum[(i >> 1) & 1] += s[i];
        }
        settle(s);  // done before the wait
        wait_products<0>();
        settle(mixed);
        settle(p);
        if (grown) {
            #pragma unroll
            for (int i = 0; i < 32; i++) mixed[i] *= shrink[(i >> 1) & 1];
        }
        as_a(p, s);
        settle(p);
    }
    begin_products();
    scores_by_rows(mixed, p, describe(key_tile(count - 1) + TILE));
    commit_products();
    wait_products<0>();
    settle(mixed);
    float share[2];
    #pragma unroll
    for (int h = 0; h < 2; h++) {
        float total = sum[h];
        total += __shfl_xor_sync(FULL_MASK, total, 1);
        total += __shfl_xor_sync(FULL_MASK, total, 2);
        share[h] = 1.0f / total;
        int row = own + warp * 16 + h * 8 + (lane >> 2);
        if (lse && pair == 0 && row < asking.len) lse[(i64)head * tokens + asking.start + row] = most[h] * scale + logf(total);
    }
    i64 at = ((asking.start + own) * heads + head) * DIM;
    write_rows(out + at, (i64)heads * DIM, asking.len - own, queries, mixed, share[0], share[1]);
}

// dq, its token t at dq + t · dq_stride; d_out and out bf16 [tokens, heads · dim]; lse and deltas [heads, tokens], which are d_out · out.
// Grid: (heads, tiles); block: 256; dynamic shared memory: 98304 bytes.
extern "C" __global__ void __launch_bounds__(BLOCK, 2) attend_texts_backward_q_64(
    bf16* dq, const bf16* d_out, const float* lse, float* deltas, const bf16* q, const bf16* k, const bf16* v,
    int dq_stride, int q_stride, int k_stride, int v_stride, const int* segments, const int* tiles, int tokens,
    int heads, int kv_heads, int causal, float scale, int first_alone, const bf16* out, float* sums) {
    after_others();
    extern __shared__ __align__(1024) unsigned char shared[];
    int head = blockIdx.x, index = tiles[blockIdx.y * 2 + 1];
    const int* segment = segments + tiles[blockIdx.y * 2] * 6;
    int len = segment[LEN], count = (len + ROWS - 1) / ROWS;
    i64 start = segment[START];
    Askers asking(segment, tiles[blockIdx.y * 2], first_alone);
    if (index % GROUPS != 0 || index * ROWS >= asking.len) return;
    int group = __shfl_sync(FULL_MASK, threadIdx.x >> 7, 0), first = index * ROWS, own = first + group * ROWS;
    u32 queries = shared_address(shared), outs = queries + GROUPS * TILE, ring = outs + GROUPS * TILE;
    Rows<BLOCK> some_keys(k + head * DIM, k_stride, start), some_values(v + head * DIM, v_stride, start);
    auto key_tile = [&](int tile) { return ring + (tile % STAGES) * 2 * TILE; };
    auto fetch = [&](int tile) {
        if (tile < count) {
            some_keys.fetch<1>(key_tile(tile), len - tile * ROWS);
            some_values.fetch<1>(key_tile(tile) + TILE, len - tile * ROWS);
        }
        commit_copies();
    };
    auto next = [&](int tile) {
        wait_copies<AHEAD - 1>();
        copies_to_products();
        __syncthreads();
        fetch(tile + AHEAD);
    };
    Rows<BLOCK>(q + head * DIM, q_stride, asking.start + first).fetch<GROUPS>(queries, asking.len - first);
    Rows<BLOCK>(d_out + head * DIM, heads * DIM, asking.start + first).fetch<GROUPS>(outs, asking.len - first);
    #pragma unroll
    for (int tile = 0; tile < AHEAD; tile++) fetch(tile);
    if (own >= asking.len) {
        for (int tile = 0; tile < count; tile++) next(tile);
        return;
    }
    int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3, pair = (lane & 3) * 2;
    queries += group * TILE;
    outs += group * TILE;
    float grad[32], s[32], dp[32], base[2], delta[2], factor = scale * LOG2E;
    clear(grad);
    // Two lanes have a row.
    int line = own + warp * 16 + (lane >> 1);
    float product = 0.0f;
    if (line < asking.len) {
        i64 at = ((asking.start + line) * heads + head) * DIM + (lane & 1) * (DIM / 2);
        #pragma unroll
        for (int i = 0; i < DIM / 2; i += 8) {
            float x[8], y[8];
            load8(d_out + at + i, x);
            load8(out + at + i, y);
            #pragma unroll
            for (int j = 0; j < 8; j++) product += x[j] * y[j];
        }
    }
    product += __shfl_xor_sync(FULL_MASK, product, 1);
    if ((lane & 1) == 0 && line < asking.len) deltas[(i64)head * tokens + asking.start + line] = product;
    #pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = own + warp * 16 + h * 8 + (lane >> 2);
        base[h] = row < asking.len ? lse[(i64)head * tokens + asking.start + row] * LOG2E : 0.0f;
        delta[h] = __shfl_sync(FULL_MASK, product, (h * 8 + (lane >> 2)) * 2);
    }
    for (int tile = 0; tile < count; tile++) {
        next(tile);
        u32 k_tile = key_tile(tile);
        begin_products();
        rows_by_rows(s, describe(queries), describe(k_tile));
        commit_products();
        rows_by_rows(dp, describe(outs), describe(k_tile + TILE));
        commit_products();
        wait_products<1>();
        settle(s);
        int left = len - tile * ROWS;
        #pragma unroll
        for (int i = 0; i < 32; i++) s[i] = exp2_fast(s[i] * factor - base[(i >> 1) & 1]);
        if (left < ROWS) {
            #pragma unroll
            for (int i = 0; i < 32; i++) {
                if ((i >> 2) * 8 + pair + (i & 1) >= left) s[i] = 0.0f;
            }
        }
        settle(s);
        wait_products<0>();
        settle(dp);
        #pragma unroll
        for (int i = 0; i < 32; i++) s[i] *= dp[i] - delta[(i >> 1) & 1];
        u32 ds[4][4];
        as_a(ds, s);
        settle(ds);
        begin_products();
        scores_by_rows(grad, ds, describe(k_tile));
        commit_products();
        wait_products<0>();
        settle(grad);
        settle(ds);
    }
    meet(group);  // no warp reads the queries any more
    write_rows(dq + (asking.start + own) * dq_stride + head * DIM, dq_stride, asking.len - own, queries, grad, scale, scale);
    // Rows that are not there have none.
    float* through = (float*)(shared + (outs - shared_address(shared)));
    if (sums) write_sums(sums + ((i64)blockIdx.y + group) * 3 * heads * DIM + head * DIM, through, group, grad, true, true, scale);
}

// dk and dv, token t at dk + t · dk_stride.
// Grid: (heads, tiles); block: 128; dynamic shared memory: 50176 bytes.
extern "C" __global__ void __launch_bounds__(WARPGROUP, 3) attend_texts_backward_kv_64(
    bf16* dk, bf16* dv, float* dk_parts, float* dv_parts, const bf16* d_out, const float* lse, const float* deltas,
    const bf16* q, const bf16* k, const bf16* v, int dk_stride, int dv_stride, int q_stride, int k_stride, int v_stride,
    const int* segments, const int* tiles, int tokens, int heads, int kv_heads, int together, int causal, float scale, int first_alone,
    float* sums) {
    after_others();
    extern __shared__ __align__(1024) unsigned char shared[];
    int head = blockIdx.x;
    const int* segment = segments + tiles[blockIdx.y * 2] * 6;
    Askers asking(segment, tiles[blockIdx.y * 2], first_alone);
    int len = segment[LEN], count = (asking.len + ROWS - 1) / ROWS, own = tiles[blockIdx.y * 2 + 1] * ROWS;
    i64 start = segment[START];
    u32 keys = shared_address(shared), values = keys + TILE, ring = values + TILE, numbers = ring + KEY_STAGES * 2 * TILE;
    const float* numbers_at = (const float*)(shared + (numbers - keys));  // lse and deltas of the queries, [stages, 2, 64]
    Rows<WARPGROUP> some_queries(q + head * DIM, q_stride, asking.start), some_outs(d_out + head * DIM, heads * DIM, asking.start);
    const float* number = (threadIdx.x < ROWS ? lse : deltas) + (i64)head * tokens + asking.start;
    auto fetch = [&](int tile) {
        if (tile < count) {
            int first = tile * ROWS, stage = tile % KEY_STAGES, at = first + (threadIdx.x & 63);
            u32 to = ring + stage * 2 * TILE;
            some_queries.fetch<1>(to, asking.len - first);
            some_outs.fetch<1>(to + TILE, asking.len - first);
            copy4(numbers + (stage * 2 * ROWS + threadIdx.x) * 4, number + (at < asking.len ? at : 0), at < asking.len);
        }
        commit_copies();
    };
    Rows<WARPGROUP>(k + head * DIM, k_stride, start + own).fetch<1>(keys, len - own);
    Rows<WARPGROUP>(v + head * DIM, v_stride, start + own).fetch<1>(values, len - own);
    #pragma unroll
    for (int tile = 0; tile < KEY_STAGES - 1; tile++) fetch(tile);
    int pair = (threadIdx.x & 3) * 2;
    float grad_k[32], grad_v[32], s[32], dp[32], factor = scale * LOG2E;
    clear(grad_k);
    clear(grad_v);
    for (int tile = 0; tile < count; tile++) {
        wait_copies<KEY_STAGES - 2>();
        copies_to_products();
        __syncthreads();
        fetch(tile + KEY_STAGES - 1);
        u32 q_tile = ring + (tile % KEY_STAGES) * 2 * TILE, out_tile = q_tile + TILE;
        const float* base = numbers_at + (tile % KEY_STAGES) * 2 * ROWS + pair;
        begin_products();
        rows_by_rows(s, describe(keys), describe(q_tile));
        commit_products();
        rows_by_rows(dp, describe(values), describe(out_tile));
        commit_products();
        wait_products<1>();
        settle(s);
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            float2 b = *(const float2*)(base + n * 8);
            float low = b.x * LOG2E, high = b.y * LOG2E;
            s[n * 4] = exp2_fast(s[n * 4] * factor - low);
            s[n * 4 + 1] = exp2_fast(s[n * 4 + 1] * factor - high);
            s[n * 4 + 2] = exp2_fast(s[n * 4 + 2] * factor - low);
            s[n * 4 + 3] = exp2_fast(s[n * 4 + 3] * factor - high);
        }
        // Queries beyond the end are zeros, as are their gradients: what they have here adds nothing.
        u32 p[4][4], ds[4][4];
        as_a(p, s);
        settle(p);
        begin_products();
        scores_by_rows(grad_v, p, describe(out_tile));
        commit_products();
        wait_products<1>();
        settle(dp);
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            float2 d = *(const float2*)(base + ROWS + n * 8);
            s[n * 4] *= dp[n * 4] - d.x;
            s[n * 4 + 1] *= dp[n * 4 + 1] - d.y;
            s[n * 4 + 2] *= dp[n * 4 + 2] - d.x;
            s[n * 4 + 3] *= dp[n * 4 + 3] - d.y;
        }
        as_a(ds, s);
        settle(ds);
        begin_products();
        scores_by_rows(grad_k, ds, describe(q_tile));
        commit_products();
        wait_products<0>();
        settle(grad_v);
        settle(grad_k);
        settle(p);
        settle(ds);
    }
    __syncthreads();  // no warp reads the keys and values any more
    write_rows(dk + (start + own) * dk_stride + head * DIM, dk_stride, len - own, keys, grad_k, scale, scale);
    write_rows(dv + (start + own) * dv_stride + head * DIM, dv_stride, len - own, values, grad_v, 1.0f, 1.0f);
    if (!sums) return;
    int row = own + (threadIdx.x >> 5) * 16 + ((threadIdx.x & 31) >> 2);
    bool low = row < len, high = row + 8 < len;
    float* through = (float*)(shared + (ring - keys));
    sums += (i64)blockIdx.y * 3 * heads * DIM + head * DIM;
    write_sums(sums + heads * DIM, through, 0, grad_k, low, high, scale);
    write_sums(sums + 2 * heads * DIM, through + 4 * DIM, 0, grad_v, low, high, 1.0f);
}
