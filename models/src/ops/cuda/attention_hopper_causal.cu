// Softmax attention over packed rows for Hopper (sm_90a alone), by wgmma: what attention.cu computes, for heads of 256 and 128.
// wgmma.cuh stands before this.
//
// A block has two warpgroups that multiply and one that fetches for them through a ring of tiles in shared memory. Whoever has
// done with a tile says so to its barrier, so that none waits for more than what it needs.
//
// A tile of COUNT rows of DIM values is DIM / 64 parts, one after the other, of 64 columns each: COUNT rows of 128 bytes.

#define ROWS 64
#define CONSUMERS 2
#define CONSUMER_WARPS (CONSUMERS * 4)
#define BLOCK ((CONSUMERS + 1) * WARPGROUP)
#define BLOCK_ROWS (CONSUMERS * ROWS)
// Registers of a thread that fetches and of one that multiplies: 65536 for a block of 384.
#define FETCHING 40
#define MULTIPLYING 232

// ---- products over tiles

// c = 64 rows of tile a (of A_COUNT) times the rows of tile b, over DIM.
template <int DIM, int A_COUNT, int HELD>
__device__ __forceinline__ void rows_by_rows(float (&c)[HELD], u32 a, u32 b) {
    constexpr int B_COUNT = HELD * 2;
    u64 a_words = describe(a), b_words = describe(b);
    #pragma unroll
    for (int k = 0; k < DIM / 16; k++) {
        multiply<0>(c, a_words + ((k >> 2) * A_COUNT * 128 + (k & 3) * 32) / 16, b_words + ((k >> 2) * B_COUNT * 128 + (k & 3) * 32) / 16, k > 0);
    }
}

// c += p (64 × 16 · N) times the rows of tile b, which has DIM = 2 · HELD columns.
template <int N, int HELD>
__device__ __forceinline__ void scores_by_rows(float (&c)[HELD], const u32 (&p)[N][4], u32 b) {
    u64 b_words = describe(b, N * 16 * 128);
    #pragma unroll
    for (int k = 0; k < N; k++) multiply<1>(c, p[k], b_words + k * 128, 1);
}

// ---- the warpgroup that fetches

// A place in a ring of SLOTS tiles, and the parity of the phase in which it is filled.
template <int SLOTS>
struct Place {
    int slot = 0, parity = 0;
    __device__ __forceinline__ void next() {
        if (++slot == SLOTS) {
            slot = 0;
            parity ^= 1;
        }
    }
};

// The barriers of a ring, and of what a block holds meanwhile: the threads that fetch announce, the warps that multiply release.
template <int SLOTS>
__device__ __forceinline__ void start_ring(u32 full, u32 empty, u32 full_held, u32 empty_held) {
    if (threadIdx.x == 0) {
        for (int i = 0; i < SLOTS; i++) {
            start_barrier(full + i * 8, WARPGROUP);
            start_barrier(empty + i * 8, CONSUMER_WARPS);
        }
        start_barrier(full_held, WARPGROUP);
        start_barrier(empty_held, CONSUMER_WARPS);
    }
    __syncthreads();
}

// A tile has come, and products may read it.
__device__ __forceinline__ void await_tile(u32 full, int parity) {
    await(full, parity);
    copies_to_products();
}

// A warp has read what it wanted of a tile.
__device__ __forceinline__ void release(u32 empty) {
    __syncwarp();
    if ((threadIdx.x & 31) == 0) arrive(empty);
}

// Asks for a tile of COUNT rows; row(i) is where row i stands, or null where it is to be zeros. By a warpgroup.
template <int DIM, int COUNT, class F>
__device__ __forceinline__ void fetch(u32 tile, F row) {
    constexpr int PIECES = DIM / 8, ROUND = WARPGROUP / PIECES;
    int first = (threadIdx.x & 127) / PIECES, piece = threadIdx.x % PIECES;
    u32 to = tile + (piece >> 3) * COUNT * 128 + tile_offset<64>(first, piece & 7);
    #pragma unroll 4  // all at once would take more registers than there are
    for (int i = 0; i < COUNT / ROUND; i++) {
        const bf16* from = row(first + i * ROUND);
        copy16((to ^ (((i * ROUND) & 7) << 4)) + i * ROUND * 128, from + piece * 8, from != nullptr);
    }
}

// Rows of x from row `first` on, `left` of them.
template <int DIM, int COUNT>
__device__ __forceinline__ void fetch_rows(u32 tile, const bf16* x, int stride, i64 first, int left) {
    const bf16* from = x + first * stride;
    fetch<DIM, COUNT>(tile, [&](int i) { return i < left ? from + (i64)i * stride : nullptr; });
}

// ---- blocks by queries: forward and dq

// The rows of a block: query heads in a row that share a key head, 2^bits of them, token by token, so that a tile of keys serves all
// of them.
struct Queries {
    const int* segment;
    int first, head, kv_head, bits;
    __device__ __forceinline__ int token(int row) const { return first + (row >> bits); }
    __device__ __forceinline__ int head_of(int row) const { return head + (row & ((1 << bits) - 1)); }
    __device__ __forceinline__ KeyTiles keys(int causal, int width) const { return KeyTiles(segment, first + (BLOCK_ROWS >> bits), causal, width); }
};

// Calls f for each of a block's shares of the work. Shares come in the order of the tiles; blocks take them to and fro.
template <class F>
__device__ __forceinline__ void for_queries(const int* segments, const int* tiles, int tile_count, int heads, int kv_heads, F f) {
    Queries q;
    int shared = heads / kv_heads;
    q.bits = min(__ffs(shared) - 1, 4);
    int splits = max(1, (ROWS << q.bits) / BLOCK_ROWS), each = (heads >> q.bits) * splits, count = tile_count * each, blocks = gridDim.x;
    for (int turn = 0; turn * blocks < count; turn++) {
        int at = turn * blocks + (turn & 1 ? blocks - 1 - blockIdx.x : blockIdx.x);
        if (at >= count) continue;
        int tile = at / each, part = at % each, index = tiles[tile * 2 + 1];
        q.segment = segments + tiles[tile * 2] * 6;
        q.first = index * ROWS + part % splits * (BLOCK_ROWS >> q.bits);
        q.head = part / splits << q.bits;
        q.kv_head = q.head / shared;
        // Where a block has the rows of two tiles, those of an odd tile come with the even one's.
        if (q.first >= q.segment[LEN] || (q.bits == 0 && index % 2 != 0)) continue;
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

// Writes half of a warp's 16 rows of a product, times `factor`, to the lane's row at `to`, or not where that is null: four lanes
// exchange what they hold of a row, so that each has 16 bytes in a row.
template <int HELD>
__device__ __forceinline__ void write_row(bf16* to, const float (&c)[HELD], int half, float factor) {
    int lane = threadIdx.x & 3;
    #pragma unroll
    for (int n = 0; n < HELD / 4; n += 4) {
        u32 w[4];
        #pragma unroll
        for (int i = 0; i < 4; i++) w[i] = pack_bf16(c[(n + i) * 4 + half * 2] * factor, c[(n + i) * 4 + half * 2 + 1] * factor);
        bool odd = lane & 1, high = lane & 2;
        u32 first = __shfl_xor_sync(FULL_MASK, odd ? w[0] : w[1], 1), second = __shfl_xor_sync(FULL_MASK, odd ? w[2] : w[3], 1);
        u32 a = odd ? first : w[0], b = odd ? w[1] : first, c = odd ? second : w[2], d = odd ? w[3] : second;
        u32 third = __shfl_xor_sync(FULL_MASK, high ? a : c, 2), fourth = __shfl_xor_sync(FULL_MASK, high ? b : d, 2);
        if (to) *(uint4*)(to + (n + lane) * 8) = high ? make_uint4(third, fourth, c, d) : make_uint4(a, b, third, fourth);
    }
}

// ---- forward

template <int DIM, int KEYS, int SLOTS>
__device__ __forceinline__ void attend_rows(
    bf16* out, float* lse, const bf16* q, const bf16* k, const bf16* v, int q_stride, int k_stride, int v_stride,
    const int* segments, const int* tiles, int tokens, int heads, int kv_heads, int causal, float scale, int tile_count) {
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int TILE = KEYS * DIM * 2, QUERIES = ROWS * DIM * 2;
    u32 queries = shared_address(shared), ring = queries + CONSUMERS * QUERIES, barriers = ring + SLOTS * TILE;
    u32 full = barriers, empty = full + SLOTS * 8, full_queries = empty + SLOTS * 8, empty_queries = full_queries + 8;
    start_ring<SLOTS>(full, empty, full_queries, empty_queries);
    int group = __shfl_sync(FULL_MASK, threadIdx.x >> 7, 0), queries_parity = 0;
    if (group == CONSUMERS) {
        fewer_registers<FETCHING>();
        Place<SLOTS> place;
        for_queries(segments, tiles, tile_count, heads, kv_heads, [&](const Queries& of) {
            KeyTiles keys = of.keys(causal, KEYS);
            for (int tile = 0; tile < keys.count; tile++) {
                i64 row = keys.row(tile, KEYS);
                int left = keys.left(tile, KEYS);
                await(empty + place.slot * 8, place.parity ^ 1);
                fetch_rows<DIM, KEYS>(ring + place.slot * TILE, k + of.kv_head * DIM, k_stride, row, left);
                announce_copies(full + place.slot * 8);
                place.next();
                if (tile == 0) {
                    await(empty_queries, queries_parity ^ 1);
                    fetch_queries<DIM>(queries, of, q, q_stride);
                    announce_copies(full_queries);
                    queries_parity ^= 1;
                }
                await(empty + place.slot * 8, place.parity ^ 1);
                fetch_rows<DIM, KEYS>(ring + place.slot * TILE, v + of.kv_head * DIM, v_stride, row, left);
                announce_copies(full + place.slot * 8);
                place.next();
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
                release(empty + key_place.slot * 8);
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
                release(empty + value_place.slot * 8);
                value_place.next();
                value_place.next();
            };
            float shrink[2];
            await_tile(full_queries, queries_parity);
            queries_parity ^= 1;
            await_tile(full + key_place.slot * 8, key_place.parity);
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
                await_tile(full + value_place.slot * 8, value_place.parity);
                await_tile(full + key_place.slot * 8, key_place.parity);
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
            await_tile(full + value_place.slot * 8, value_place.parity);
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
}

// As attend_256 and so on of attention.cu, and tile_count, the number of tiles.
// Grid: as many blocks as the card has multiprocessors, or fewer; block: 384; dynamic shared memory: 229632 bytes.
#define ATTEND_ROWS(DIM, KEYS)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(BLOCK, 1) attend_rows_##DIM(                                                   \
        bf16* out, float* lse, const bf16* q, const bf16* k, const bf16* v, int q_stride, int k_stride, int v_stride,           \
        const int* segments, const int* tiles, int tokens, int heads, int kv_heads, int causal, float scale, int tile_count) {  \
        attend_rows<DIM, KEYS, (229632 - 256 - BLOCK_ROWS * DIM * 2) / (KEYS * DIM * 2)>(                                  \
            out, lse, q, k, v, q_stride, k_stride, v_stride, segments, tiles, tokens, heads, kv_heads, causal, scale, tile_count); \
    }

ATTEND_ROWS(256, 64)
ATTEND_ROWS(128, 128)

// ---- backward: dq

// Keys and values have rings of their own, for a tile of values is done with first.
template <int DIM, int KEYS, int KEY_SLOTS, int VALUE_SLOTS>
__device__ __forceinline__ void attend_rows_backward_q(
    bf16* dq, const bf16* d_out, const float* lse, const float* deltas, const bf16* q, const bf16* k, const bf16* v, int dq_stride,
    int q_stride, int k_stride, int v_stride, const int* segments, const int* tiles, int tokens, int heads, int kv_heads,
    int causal, float scale, int tile_count) {
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int TILE = KEYS * DIM * 2, QUERIES = ROWS * DIM * 2, SLOTS = KEY_SLOTS + VALUE_SLOTS;
    u32 queries = shared_address(shared), outs = queries + CONSUMERS * QUERIES, ring = outs + CONSUMERS * QUERIES, barriers = ring + SLOTS * TILE;
    u32 full = barriers, empty = full + SLOTS * 8, full_queries = empty + SLOTS * 8, empty_queries = full_queries + 8;
    u32 values = ring + KEY_SLOTS * TILE, values_full = full + KEY_SLOTS * 8, values_empty = empty + KEY_SLOTS * 8;
    start_ring<SLOTS>(full, empty, full_queries, empty_queries);
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
                i64 row = keys.row(tile, KEYS);
                int left = keys.left(tile, KEYS);
                await(empty + key_place.slot * 8, key_place.parity ^ 1);
                fetch_rows<DIM, KEYS>(ring + key_place.slot * TILE, k + of.kv_head * DIM, k_stride, row, left);
                announce_copies(full + key_place.slot * 8);
                key_place.next();
                await(values_empty + value_place.slot * 8, value_place.parity ^ 1);
                fetch_rows<DIM, KEYS>(values + value_place.slot * TILE, v + of.kv_head * DIM, v_stride, row, left);
                announce_copies(values_full + value_place.slot * 8);
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
                await_tile(full + key_place.slot * 8, key_place.parity);
                begin_products();
                rows_by_rows<DIM, ROWS>(s, queries, ring + key_place.slot * TILE);
                commit_products();
            };
            auto ask_dp = [&] {
                await_tile(values_full + value_place.slot * 8, value_place.parity);
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
                release(values_empty + value_place.slot * 8);
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
            await_tile(full_queries, queries_parity);
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
                release(done);
                ask_dp();
                slope(tile);
            }
            ask_grad();
            wait_products<0>();
            settle(grad);
            settle(ds);
            release(empty + key_place.slot * 8);
            key_place.next();
            #pragma unroll
            for (int h = 0; h < 2; h++) {
                int token = of.token(row + h * 8);
                write_row(token < of.segment[LEN] ? dq + (start + token) * dq_stride + of.head_of(row + h * 8) * DIM : nullptr, grad, h, scale);
            }
        });
    }
}

// As attend_backward_q_256 and so on of attention.cu, and tile_count.
// Grid: as many blocks as the card has multiprocessors, or fewer; block: 384; dynamic shared memory: 229632 bytes.
#define ATTEND_ROWS_BACKWARD_Q(DIM, KEYS, KEY_SLOTS, VALUE_SLOTS)                                                                                        \
    extern "C" __global__ void __launch_bounds__(BLOCK, 1) attend_rows_backward_q_##DIM(                                        \
        bf16* dq, const bf16* d_out, const float* lse, const float* deltas, const bf16* q, const bf16* k, const bf16* v,        \
        int dq_stride, int q_stride, int k_stride, int v_stride, const int* segments, const int* tiles, int tokens,             \
        int heads, int kv_heads, int causal, float scale, int tile_count) {                                                     \
        attend_rows_backward_q<DIM, KEYS, KEY_SLOTS, VALUE_SLOTS>(dq, d_out, lse, deltas, \
            q, k, v, dq_stride, q_stride, k_stride, v_stride, segments, tiles, tokens, heads, kv_heads, causal, scale, tile_count); \
    }

ATTEND_ROWS_BACKWARD_Q(256, 64, 2, 1)
ATTEND_ROWS_BACKWARD_Q(128, 64, 5, 5)

// ---- backward: dk and dv
//
// A block has 64 keys. One warpgroup has scores, their weights and dv; the other what the weights' gradients are, and dk. The
// weights go from one to the other in f16, of which they lose less than of bf16.

__device__ __forceinline__ u32 pack_f16(float low, float high) {
    u32 out;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

__device__ __forceinline__ float2 unpack_f16(u32 pair) {
    float2 x;
    asm("{\n.reg .f16 low, high;\nmov.b32 {low, high}, %2;\ncvt.f32.f16 %0, low;\ncvt.f32.f16 %1, high;\n}" : "=f"(x.x), "=f"(x.y) : "r"(pair));
    return x;
}

// Tiles of queries that see a tile of keys: of its own segment from the first that sees a key, then of every child; for each head.
struct Seers {
    const int *segments, *segment;
    int first_own, first_head, together;
    __device__ __forceinline__ static int tiles_of(const int* s) { return (s[LEN] + ROWS - 1) / ROWS; }
    __device__ __forceinline__ const int* child(int c) const { return segments + (segment[FIRST_CHILD] + c) * 6; }
    __device__ __forceinline__ int count() const {
        int each = tiles_of(segment) - first_own;
        for (int c = 0; c < segment[CHILDREN]; c++) each += tiles_of(child(c));
        return each * together;
    }
    // Calls f(head, first row, its place in its segment, rows from it on, whether the segment is the keys' own).
    template <class F>
    __device__ __forceinline__ void for_each(F f) const {
        for (int head = first_head; head < first_head + together; head++) {
            for (int c = -1; c < segment[CHILDREN]; c++) {
                const int* s = c < 0 ? segment : child(c);
                int start = s[START], len = s[LEN];
                for (int first = c < 0 ? first_own * ROWS : 0; first < len; first += ROWS) f(head, start + first, first, len - first, c < 0);
            }
        }
    }
};

#define EXCHANGE (ROWS * ROWS * 2)

template <int DIM, int SLOTS>
__device__ __forceinline__ void attend_rows_backward_kv(
    bf16* dk, bf16* dv, float* dk_parts, float* dv_parts, const bf16* d_out, const float* lse, const float* deltas, const bf16* q,
    const bf16* k, const bf16* v, int dk_stride, int dv_stride, int q_stride, int k_stride, int v_stride, const int* segments,
    const int* tiles, int tokens, int heads, int kv_heads, int together, int causal, float scale) {
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int TILE = ROWS * DIM * 2;
    int head_group = blockIdx.x, first_head = head_group * together, kv_head = first_head / (heads / kv_heads);
    int place_of_tile = gridDim.y - 1 - blockIdx.y, first_key = tiles[place_of_tile * 2 + 1] * ROWS;
    const int* segment = segments + tiles[place_of_tile * 2] * 6;
    int len = segment[LEN];
    i64 start = segment[START];
    Seers seers = {segments, segment, causal ? first_key / ROWS : 0, first_head, together};
    u32 keys = shared_address(shared), values = keys + TILE, queries = values + TILE, outs = queries + SLOTS * TILE;
    u32 exchange = outs + SLOTS * TILE, bases = exchange + 2 * EXCHANGE, drops = bases + SLOTS * ROWS * 4;
    u32 barriers = drops + SLOTS * ROWS * 4, full_q = barriers, empty_q = full_q + SLOTS * 8, full_o = empty_q + SLOTS * 8;
    u32 empty_o = full_o + SLOTS * 8, full_held = empty_o + SLOTS * 8, full_p = full_held + 8, empty_p = full_p + 16;
    if (threadIdx.x == 0) {
        for (int i = 0; i < SLOTS; i++) {
            start_barrier(full_q + i * 8, WARPGROUP);
            start_barrier(full_o + i * 8, WARPGROUP);
            start_barrier(empty_q + i * 8, CONSUMER_WARPS);
            start_barrier(empty_o + i * 8, CONSUMER_WARPS);
        }
        start_barrier(full_held, WARPGROUP);
        for (int i = 0; i < 2; i++) {
            start_barrier(full_p + i * 8, 4);
            start_barrier(empty_p + i * 8, 4);
        }
    }
    __syncthreads();
    int group = __shfl_sync(FULL_MASK, threadIdx.x >> 7, 0), lane = threadIdx.x & 31, pair = (lane & 3) * 2;
    if (group == CONSUMERS) {
        fewer_registers<FETCHING>();
        Place<SLOTS> place;
        fetch_rows<DIM, ROWS>(keys, k + kv_head * DIM, k_stride, start + first_key, len - first_key);
        fetch_rows<DIM, ROWS>(values, v + kv_head * DIM, v_stride, start + first_key, len - first_key);
        announce_copies(full_held);
        // 64 numbers of the queries beside their tile.
        auto fetch_numbers = [&](u32 to, const float* from, int left) {
            int i = threadIdx.x & 127;
            if (i < ROWS) copy4(to + (place.slot * ROWS + i) * 4, from + (i < left ? i : 0), i < left);
        };
        seers.for_each([&](int head, i64 row, int, int left, bool) {
            i64 number = (i64)head * tokens + row;
            await(empty_q + place.slot * 8, place.parity ^ 1);
            fetch_rows<DIM, ROWS>(queries + place.slot * TILE, q + head * DIM, q_stride, row, left);
            fetch_numbers(bases, lse + number, left);
            announce_copies(full_q + place.slot * 8);
            await(empty_o + place.slot * 8, place.parity ^ 1);
            fetch_rows<DIM, ROWS>(outs + place.slot * TILE, d_out + head * DIM, heads * DIM, row, left);
            fetch_numbers(drops, deltas + number, left);
            announce_copies(full_o + place.slot * 8);
            place.next();
        });
    } else {
        more_registers<MULTIPLYING>();
        int warp = (threadIdx.x >> 5) & 3, key = first_key + warp * 16 + (lane >> 2), count = seers.count(), at = 0;
        u32 own = exchange + (threadIdx.x & 127) * 16;
        float grad[DIM / 2], s[ROWS / 2], factor = scale * LOG2E;
        u32 a[ROWS / 16][4];
        Place<SLOTS> asked, place;  // of the tile that scores or weights' gradients are asked for, and of the one that is worked on
        Place<2> handed;
        clear(grad);
        await_tile(full_held, 0);
        if (group == 0) {
            auto ask = [&] {
                await_tile(full_q + asked.slot * 8, asked.parity);
                begin_products();
                rows_by_rows<DIM, ROWS>(s, keys, queries + asked.slot * TILE);
                commit_products();
                asked.next();
            };
            ask();
            seers.for_each([&](int, i64, int first, int left, bool own_segment) {
                wait_products<0>();
                settle(grad);
                settle(a);
                settle(s);
                const float* base = (const float*)(shared + (bases - keys)) + place.slot * ROWS + pair;
                #pragma unroll
                for (int n = 0; n < 8; n++) {
                    float2 b = *(const float2*)(base + n * 8);
                    float low = b.x * LOG2E, high = b.y * LOG2E;
                    s[n * 4] = exp2_fast(s[n * 4] * factor - low);
                    s[n * 4 + 1] = exp2_fast(s[n * 4 + 1] * factor - high);
                    s[n * 4 + 2] = exp2_fast(s[n * 4 + 2] * factor - low);
                    s[n * 4 + 3] = exp2_fast(s[n * 4 + 3] * factor - high);
                }
                release(empty_q + place.slot * 8);
                bool diagonal = causal && own_segment && first < first_key + ROWS;
                if (left < ROWS || diagonal) {
                    #pragma unroll
                    for (int i = 0; i < ROWS / 2; i++) {
                        int query = (i >> 2) * 8 + pair + (i & 1);
                        if (query >= left || (diagonal && first + query < key + ((i >> 1) & 1) * 8)) s[i] = 0.0f;
                    }
                }
                await(empty_p + handed.slot * 8, handed.parity ^ 1);
                #pragma unroll
                for (int i = 0; i < 4; i++) {
                    store16(own + handed.slot * EXCHANGE + i * WARPGROUP * 16,
                        make_uint4(pack_f16(s[i * 8], s[i * 8 + 1]), pack_f16(s[i * 8 + 2], s[i * 8 + 3]),
                            pack_f16(s[i * 8 + 4], s[i * 8 + 5]), pack_f16(s[i * 8 + 6], s[i * 8 + 7])));
                }
                release(full_p + handed.slot * 8);
                handed.next();
                as_a(a, s);
                settle(a);
                await_tile(full_o + place.slot * 8, place.parity);
                begin_products();
                scores_by_rows(grad, a, outs + place.slot * TILE);
                commit_products();
                if (++at < count) {
                    ask();
                    wait_products<1>();
                } else {
                    wait_products<0>();
                }
                release(empty_o + place.slot * 8);
                place.next();
            });
        } else {
            auto ask = [&] {
                await_tile(full_o + asked.slot * 8, asked.parity);
                begin_products();
                rows_by_rows<DIM, ROWS>(s, values, outs + asked.slot * TILE);
                commit_products();
                asked.next();
            };
            ask();
            seers.for_each([&](int, i64, int, int, bool) {
                wait_products<0>();
                settle(grad);
                settle(a);
                settle(s);
                const float* drop = (const float*)(shared + (drops - keys)) + place.slot * ROWS + pair;
                #pragma unroll
                for (int n = 0; n < 8; n++) {
                    float2 d = *(const float2*)(drop + n * 8);
                    s[n * 4] -= d.x;
                    s[n * 4 + 1] -= d.y;
                    s[n * 4 + 2] -= d.x;
                    s[n * 4 + 3] -= d.y;
                }
                release(empty_o + place.slot * 8);
                await(full_p + handed.slot * 8, handed.parity);
                #pragma unroll
                for (int i = 0; i < 4; i++) {
                    uint4 p = load16(own + handed.slot * EXCHANGE + i * WARPGROUP * 16);
                    float2 x = unpack_f16(p.x), y = unpack_f16(p.y), z = unpack_f16(p.z), w = unpack_f16(p.w);
                    s[i * 8] *= x.x;
                    s[i * 8 + 1] *= x.y;
                    s[i * 8 + 2] *= y.x;
                    s[i * 8 + 3] *= y.y;
                    s[i * 8 + 4] *= z.x;
                    s[i * 8 + 5] *= z.y;
                    s[i * 8 + 6] *= w.x;
                    s[i * 8 + 7] *= w.y;
                }
                release(empty_p + handed.slot * 8);
                handed.next();
                as_a(a, s);
                settle(a);
                await_tile(full_q + place.slot * 8, place.parity);
                begin_products();
                scores_by_rows(grad, a, queries + place.slot * TILE);
                commit_products();
                if (++at < count) {
                    ask();
                    wait_products<1>();
                } else {
                    wait_products<0>();
                }
                release(empty_q + place.slot * 8);
                place.next();
            });
        }
        settle(grad);
        float* parts = group == 0 ? dv_parts : dk_parts;
        bf16* to = group == 0 ? dv : dk;
        int stride = group == 0 ? dv_stride : dk_stride;
        float times = group == 0 ? 1.0f : scale;
        #pragma unroll
        for (int h = 0; h < 2; h++) {
            int row = key + h * 8;
            bool there = row < len;
            if (!parts) {
                write_row(there ? to + (start + row) * stride + kv_head * DIM : nullptr, grad, h, times);
            } else if (there) {
                float* part = parts + ((start + row) * gridDim.x + head_group) * DIM + pair;
                #pragma unroll
                for (int n = 0; n < DIM / 8; n++) *(float2*)(part + n * 8) = make_float2(grad[n * 4 + 2 * h] * times, grad[n * 4 + 2 * h + 1] * times);
            }
        }
    }
}

// As attend_backward_kv_256 of attention.cu. Grid: (heads / together, tiles); block: 384; dynamic shared memory: 214272 bytes.
extern "C" __global__ void __launch_bounds__(BLOCK, 1) attend_rows_backward_kv_256(
    bf16* dk, bf16* dv, float* dk_parts, float* dv_parts, const bf16* d_out, const float* lse, const float* deltas,
    const bf16* q, const bf16* k, const bf16* v, int dk_stride, int dv_stride, int q_stride, int k_stride, int v_stride,
    const int* segments, const int* tiles, int tokens, int heads, int kv_heads, int together, int causal, float scale) {
    attend_rows_backward_kv<256, 2>(dk, dv, dk_parts, dv_parts, d_out, lse, deltas, q, k, v, dk_stride, dv_stride, q_stride, k_stride,
        v_stride, segments, tiles, tokens, heads, kv_heads, together, causal, scale);
}
