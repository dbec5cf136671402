// Softmax attention over packed rows for Hopper by blocks of queries: forward and dq. See packed_hopper.cuh.

// ---- blocks by queries: forward and dq

// The rows of a block: query heads in a row that share a key head, 2^bits of them, token by token, so that a tile of keys serves all
// of them.
struct Queries {
    const int* segment;
    int pair_first, first, head, kv_head, bits;
    __device__ __forceinline__ int token(int row) const { return first + (row >> bits); }
    __device__ __forceinline__ int head_of(int row) const { return head + (row & ((1 << bits) - 1)); }
    // The keys that either block of the cluster sees.
    __device__ __forceinline__ KeyTiles keys(int causal, int width) const {
        return KeyTiles(segment, pair_first + (CLUSTER * BLOCK_ROWS >> bits), causal, width);
    }
};

// Calls f for each of a block's shares of the work. Shares come in the order of the tiles; clusters take them to and fro. A block
// whose neighbour alone has rows goes through the same, with rows that are not there.
template <class F>
__device__ __forceinline__ void for_queries(const int* segments, const int* tiles, int tile_count, int heads, int kv_heads, F f) {
    Queries q;
    int shared = heads / kv_heads;
    q.bits = min(__ffs(shared) - 1, 4);
    int span = CLUSTER * BLOCK_ROWS >> q.bits, splits = max(1, ROWS / span), joined = max(1, span / ROWS);
    int each = (heads >> q.bits) * splits, count = tile_count * each, clusters = gridDim.x / CLUSTER, own = blockIdx.x / CLUSTER;
    for (int turn = 0; turn * clusters < count; turn++) {
        int at = turn * clusters + (turn & 1 ? clusters - 1 - own : own);
        if (at >= count) continue;
        int tile = at / each, part = at % each, index = tiles[tile * 2 + 1];
        q.segment = segments + tiles[tile * 2] * 6;
        q.pair_first = index * ROWS + part % splits * span;
        q.first = q.pair_first + rank_in_pair() * (BLOCK_ROWS >> q.bits);
        q.head = part / splits << q.bits;
        q.kv_head = q.head / shared;
        // Where a cluster has the rows of several tiles, those of the others come with the first's.
        if (q.pair_first >= q.segment[LEN] || index % joined != 0) continue;
        f(q);
    }
}

// Asks for the BLOCK_ROWS rows of a block: a tile for each warpgroup.
template <int DIM>
__device__ __forceinline__ void fetch_queries(u32 tile, const Queries& of, const bf16* x, int stride) {
    int left = of.segment[LEN];
    x += (i64)of.segment[START] * stride;
    #pragma unroll
    for (int group = 0; group < CONSUMERS; group++) {
        fetch<DIM, ROWS>(tile + group * ROWS * DIM * 2, [&](int i) {
            int row = group * ROWS + i, token = of.token(row);
            return token < left ? x + (i64)token * stride + of.head_of(row) * DIM : nullptr;
        });
    }
}

// How many keys of a tile, from its first on, a query at `token` sees.
__device__ __forceinline__ int seen(const KeyTiles& keys, int tile, int width, int causal, int token) {
    int left = keys.left(tile, width);
    return causal && !keys.in_prefix(tile) ? min(left, token - keys.first(tile, width) + 1) : left;
}

// ---- forward

template <int DIM, int KEYS, int SLOTS>
__device__ __forceinline__ void attend_rows(
    bf16* out, float* lse, const bf16* q, const Map& k, const Map& v, int q_stride, const int* segments, const int* tiles,
    int tokens, int heads, int kv_heads, int causal, float scale, int tile_count) {
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int TILE = KEYS * DIM * 2, QUERIES = ROWS * DIM * 2;
    u32 queries = shared_address(shared), ring = queries + CONSUMERS * QUERIES, barriers = ring + SLOTS * TILE;
    u32 full = barriers, empty = full + SLOTS * 8, full_queries = empty + SLOTS * 8, empty_queries = full_queries + 8;
    if (threadIdx.x == 0) {
        start_ring<SLOTS>(full, empty, 1);
        start_barrier(full_queries, WARPGROUP);
        start_barrier(empty_queries, CONSUMER_WARPS);
    }
    meet();
    int group = __shfl_sync(FULL_MASK, threadIdx.x >> 7, 0), queries_parity = 0;
    if (group == CONSUMERS) {
        fewer_registers<FETCHING>();
        Place<SLOTS> place;
        for_queries(segments, tiles, tile_count, heads, kv_heads, [&](const Queries& of) {
            KeyTiles keys = of.keys(causal, KEYS);
            auto ask = [&](const Map& x, int row) {
                if ((threadIdx.x & 127) == 0) {
                    await(empty + place.slot * 8, place.parity ^ 1);
                    fetch_tile<DIM, KEYS>(ring + place.slot * TILE, x, of.kv_head, row, full + place.slot * 8);
                }
                place.next();
            };
            for (int tile = 0; tile < keys.count; tile++) {
                int row = keys.row(tile, KEYS);
                ask(k, row);
                if (tile == 0) {
                    await(empty_queries, queries_parity ^ 1);
                    fetch_queries<DIM>(queries, of, q, q_stride);
                    announce_copies(full_queries);
                    queries_parity ^= 1;
                }
                ask(v, row);
            }
        });
    } else {
        more_registers<MULTIPLYING>();
        int lane = threadIdx.x & 31, pair = (lane & 3) * 2, row = group * ROWS + ((threadIdx.x >> 5) & 3) * 16 + (lane >> 2);
        queries += group * QUERIES;
        Place<SLOTS> key_place, value_place;
        value_place.next();
        float factor = scale * LOG2E;
        for_queries(segments, tiles, tile_count, heads, kv_heads, [&](const Queries& of) {
            KeyTiles keys = of.keys(causal, KEYS);
            u32 p[KEYS / 16][4];
            float mixed[DIM / 2], s[KEYS / 2], most[2] = {-INFINITE, -INFINITE}, sum[2] = {0.0f, 0.0f};
            clear(mixed);
            // After the scores of a tile came: they become weights, and what was mixed is to shrink.
            auto weigh = [&](int tile, float (&shrink)[2]) {
                release_tile(empty + key_place.slot * 8);
                key_place.next();
                key_place.next();
                if (tile == keys.count - 1) release(empty_queries);
                if (seen(keys, tile, KEYS, causal, of.first) < KEYS) {
                    int most_seen[2] = {seen(keys, tile, KEYS, causal, of.token(row)), seen(keys, tile, KEYS, causal, of.token(row + 8))};
                    #pragma unroll
                    for (int i = 0; i < KEYS / 2; i++) {
                        if ((i >> 2) * 8 + pair + (i & 1) >= most_seen[(i >> 1) & 1]) s[i] = -INFINITE;
                    }
                }
                float top[2] = {most[0], most[1]};
                #pragma unroll
                for (int i = 0; i < KEYS / 2; i++) top[(i >> 1) & 1] = fmaxf(top[(i >> 1) & 1], s[i]);
                #pragma unroll
                for (int h = 0; h < 2; h++) {
                    top[h] = fmaxf(top[h], __shfl_xor_sync(FULL_MASK, top[h], 1));
                    top[h] = fmaxf(top[h], __shfl_xor_sync(FULL_MASK, top[h], 2));
                    shrink[h] = exp2_fast((most[h] - top[h]) * factor);
                    most[h] = top[h];
                    sum[h] *= shrink[h];
                }
                float base[2] = {most[0] * factor, most[1] * factor};
                #pragma unroll
                for (int i = 0; i < KEYS / 2; i++) {
                    s[i] = exp2_fast(s[i] * factor - base[(i >> 1) & 1]);
                    sum[(i >> 1) & 1] += s[i];
                }
                settle(s);  // done before what comes next
            };
            auto mix = [&] {
                begin_products();
                scores_by_rows(mixed, p, ring + value_place.slot * TILE);
                commit_products();
            };
            auto mixed_now = [&] {
                wait_products<0>();
                settle(mixed);
                settle(p);
                release_tile(empty + value_place.slot * 8);
                value_place.next();
                value_place.next();
            };
            float shrink[2];
            await_rows(full_queries, queries_parity);
            queries_parity ^= 1;
            await(full + key_place.slot * 8, key_place.parity);
            begin_products();
            rows_by_rows<DIM, ROWS>(s, queries, ring + key_place.slot * TILE);
            commit_products();
            wait_products<0>();
            settle(s);
            weigh(0, shrink);
            as_a(p, s);
            settle(p);
            for (int tile = 1; tile < keys.count; tile++) {
                // Scores of this tile and the mix of the last one are asked for together: the second runs while the first become weights.
                await(full + value_place.slot * 8, value_place.parity);
                await(full + key_place.slot * 8, key_place.parity);
                begin_products();
                rows_by_rows<DIM, ROWS>(s, queries, ring + key_place.slot * TILE);
                commit_products();
                mix();
                wait_products<1>();
                settle(s);
                weigh(tile, shrink);
                mixed_now();
                if (__any_sync(FULL_MASK, shrink[0] != 1.0f || shrink[1] != 1.0f)) {
                    #pragma unroll
                    for (int i = 0; i < DIM / 2; i++) mixed[i] *= shrink[(i >> 1) & 1];
                }
                as_a(p, s);
                settle(p);
            }
            await(full + value_place.slot * 8, value_place.parity);
            mix();
            mixed_now();
            i64 start = of.segment[START];
            #pragma unroll
            for (int h = 0; h < 2; h++) {
                float total = sum[h];
                total += __shfl_xor_sync(FULL_MASK, total, 1);
                total += __shfl_xor_sync(FULL_MASK, total, 2);
                int token = of.token(row + h * 8), head = of.head_of(row + h * 8);
                bool there = token < of.segment[LEN];
                if (lse && pair == 0 && there) lse[(i64)head * tokens + start + token] = most[h] * scale + logf(total);
                write_row(there ? out + ((start + token) * heads + head) * DIM : nullptr, mixed, h, 1.0f / total);
            }
        });
    }
    meet();
}

// As attend_256 and so on of attention.cu, but keys and values are described by maps; and tile_count, the number of tiles.
// Grid: as many blocks as the card has multiprocessors, or fewer, an even number; block: 384; dynamic shared memory: 229632 bytes.
#define ATTEND_ROWS(DIM, KEYS)                                                                                                   \
    extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(BLOCK, 1) attend_rows_##DIM(                   \
        bf16* out, float* lse, const bf16* q, const __grid_constant__ Map k, const __grid_constant__ Map v, int q_stride,   \
        const int* segments, const int* tiles, int tokens, int heads, int kv_heads, int causal, float scale, int tile_count) {  \
        after_others();                                                                                                         \
        attend_rows<DIM, KEYS, (229632 - 256 - BLOCK_ROWS * DIM * 2) / (KEYS * DIM * 2)>(                                       \
            out, lse, q, k, v, q_stride, segments, tiles, tokens, heads, kv_heads, causal, scale, tile_count);                  \
    }

ATTEND_ROWS(256, 64)
ATTEND_ROWS(128, 128)

// ---- backward: dq

// Keys and values have rings of their own, for a tile of values is done with first.
template <int DIM, int KEYS, int KEY_SLOTS, int VALUE_SLOTS>
__device__ __forceinline__ void attend_rows_backward_q(
    bf16* dq, const bf16* d_out, const float* lse, const float* deltas, const bf16* q, const Map& k, const Map& v, int dq_stride,
    int q_stride, const int* segments, const int* tiles, int tokens, int heads, int kv_heads, int causal, float scale, int tile_count) {
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int TILE = KEYS * DIM * 2, QUERIES = ROWS * DIM * 2, SLOTS = KEY_SLOTS + VALUE_SLOTS;
    u32 queries = shared_address(shared), outs = queries + CONSUMERS * QUERIES, ring = outs + CONSUMERS * QUERIES, barriers = ring + SLOTS * TILE;
    u32 full = barriers, empty = full + SLOTS * 8, full_queries = empty + SLOTS * 8, empty_queries = full_queries + 8;
    u32 values = ring + KEY_SLOTS * TILE, values_full = full + KEY_SLOTS * 8, values_empty = empty + KEY_SLOTS * 8;
    if (threadIdx.x == 0) {
        start_ring<SLOTS>(full, empty, 1);
        start_barrier(full_queries, WARPGROUP);
        start_barrier(empty_queries, CONSUMER_WARPS);
    }
    meet();
    int group = __shfl_sync(FULL_MASK, threadIdx.x >> 7, 0), queries_parity = 0;
    if (group == CONSUMERS) {
        fewer_registers<FETCHING>();
        Place<KEY_SLOTS> key_place;
        Place<VALUE_SLOTS> value_place;
        for_queries(segments, tiles, tile_count, heads, kv_heads, [&](const Queries& of) {
            KeyTiles keys = of.keys(causal, KEYS);
            await(empty_queries, queries_parity ^ 1);
            fetch_queries<DIM>(queries, of, q, q_stride);
            fetch_queries<DIM>(outs, of, d_out, heads * DIM);
            announce_copies(full_queries);
            queries_parity ^= 1;
            for (int tile = 0; tile < keys.count; tile++) {
                int row = keys.row(tile, KEYS);
                if ((threadIdx.x & 127) == 0) {
                    await(empty + key_place.slot * 8, key_place.parity ^ 1);
                    fetch_tile<DIM, KEYS>(ring + key_place.slot * TILE, k, of.kv_head, row, full + key_place.slot * 8);
                    await(values_empty + value_place.slot * 8, value_place.parity ^ 1);
                    fetch_tile<DIM, KEYS>(values + value_place.slot * TILE, v, of.kv_head, row, values_full + value_place.slot * 8);
                }
                key_place.next();
                value_place.next();
            }
        });
    } else {
        more_registers<MULTIPLYING>();
        int lane = threadIdx.x & 31, pair = (lane & 3) * 2, row = group * ROWS + ((threadIdx.x >> 5) & 3) * 16 + (lane >> 2);
        queries += group * QUERIES;
        outs += group * QUERIES;
        Place<KEY_SLOTS> key_place;
        Place<VALUE_SLOTS> value_place;
        float factor = scale * LOG2E;
        for_queries(segments, tiles, tile_count, heads, kv_heads, [&](const Queries& of) {
            KeyTiles keys = of.keys(causal, KEYS);
            i64 start = of.segment[START];
            float grad[DIM / 2], s[KEYS / 2], dp[KEYS / 2], base[2], delta[2];
            u32 ds[KEYS / 16][4];
            clear(grad);
            #pragma unroll
            for (int h = 0; h < 2; h++) {
                int token = of.token(row + h * 8);
                i64 at = (i64)of.head_of(row + h * 8) * tokens + start + token;
                bool there = token < of.segment[LEN];
                base[h] = there ? lse[at] * LOG2E : 0.0f;
                delta[h] = there ? deltas[at] : 0.0f;
            }
            auto ask_scores = [&] {
                await(full + key_place.slot * 8, key_place.parity);
                begin_products();
                rows_by_rows<DIM, ROWS>(s, queries, ring + key_place.slot * TILE);
                commit_products();
            };
            auto ask_dp = [&] {
                await(values_full + value_place.slot * 8, value_place.parity);
                begin_products();
                rows_by_rows<DIM, ROWS>(dp, outs, values + value_place.slot * TILE);
                commit_products();
            };
            // Once scores and dp have come: the gradients of the scores, in bf16.
            auto slope = [&](int tile) {
                wait_products<1>();
                settle(s);
                #pragma unroll
                for (int i = 0; i < KEYS / 2; i++) s[i] = exp2_fast(s[i] * factor - base[(i >> 1) & 1]);
                if (seen(keys, tile, KEYS, causal, of.first) < KEYS) {
                    int most_seen[2] = {seen(keys, tile, KEYS, causal, of.token(row)), seen(keys, tile, KEYS, causal, of.token(row + 8))};
                    #pragma unroll
                    for (int i = 0; i < KEYS / 2; i++) {
                        if ((i >> 2) * 8 + pair + (i & 1) >= most_seen[(i >> 1) & 1]) s[i] = 0.0f;
                    }
                }
                settle(s);
                wait_products<0>();
                settle(dp);
                release_tile(values_empty + value_place.slot * 8);
                value_place.next();
                if (tile == keys.count - 1) release(empty_queries);
                #pragma unroll
                for (int i = 0; i < KEYS / 2; i++) s[i] *= dp[i] - delta[(i >> 1) & 1];
                as_a(ds, s);
                settle(ds);
            };
            auto ask_grad = [&] {
                begin_products();
                scores_by_rows(grad, ds, ring + key_place.slot * TILE);
                commit_products();
            };
            await_rows(full_queries, queries_parity);
            queries_parity ^= 1;
            ask_scores();
            ask_dp();
            slope(0);
            for (int tile = 1; tile < keys.count; tile++) {
                ask_grad();
                u32 done = empty + key_place.slot * 8;
                key_place.next();
                ask_scores();
                wait_products<1>();
                settle(grad);
                settle(ds);
                release_tile(done);
                ask_dp();
                slope(tile);
            }
            ask_grad();
            wait_products<0>();
            settle(grad);
            settle(ds);
            release_tile(empty + key_place.slot * 8);
            key_place.next();
            #pragma unroll
            for (int h = 0; h < 2; h++) {
                int token = of.token(row + h * 8);
                write_row(token < of.segment[LEN] ? dq + (start + token) * dq_stride + of.head_of(row + h * 8) * DIM : nullptr, grad, h, scale);
            }
        });
    }
    meet();
}

// As attend_backward_q_256 and so on of attention.cu, but for the maps and tile_count.
// Grid: as many blocks as the card has multiprocessors, or fewer, an even number; block: 384; dynamic shared memory: 229632 bytes.
#define ATTEND_ROWS_BACKWARD_Q(DIM, KEYS, KEY_SLOTS, VALUE_SLOTS)                                                                \
    extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(BLOCK, 1) attend_rows_backward_q_##DIM(        \
        bf16* dq, const bf16* d_out, const float* lse, const float* deltas, const bf16* q, const __grid_constant__ Map k,     \
        const __grid_constant__ Map v, int dq_stride, int q_stride, const int* segments, const int* tiles, int tokens,        \
        int heads, int kv_heads, int causal, float scale, int tile_count) {                                                     \
        after_others();                                                                                                         \
        attend_rows_backward_q<DIM, KEYS, KEY_SLOTS, VALUE_SLOTS>(dq, d_out, lse, deltas, q, k, v, dq_stride, q_stride,         \
            segments, tiles, tokens, heads, kv_heads, causal, scale, tile_count);                                               \
    }

ATTEND_ROWS_BACKWARD_Q(256, 64, 2, 1)
ATTEND_ROWS_BACKWARD_Q(128, 64, 5, 5)
