// Softmax attention over packed rows for Hopper by blocks of keys: dk and dv. See packed_hopper.cuh.

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

// A tile of the ring, and 64 numbers of its rows.
template <int DIM, int SLOTS>
__device__ __forceinline__ void fetch_with_numbers(
    const Place<SLOTS>& place, u32 tiles, const Map& x, u32 numbers, const float* from, u32 full, u32 empty, int head, int row, int left) {
    int i = threadIdx.x & 127;
    await(empty + place.slot * 8, place.parity ^ 1);
    if (i == 0) fetch_tile<DIM, ROWS>(tiles + place.slot * ROWS * DIM * 2, x, head, row, full + place.slot * 8);
    if (i < ROWS) copy4(numbers + (place.slot * ROWS + i) * 4, from + (i < left ? i : 0), i < left);
    announce_copies(full + place.slot * 8);
}

// Scores of keys by queries become weights, given the queries' lse. diagonal: whether a query may not see a key, `first` being its place
// among the segment's tokens, as `key` is.
__device__ __forceinline__ void weigh_keys(float (&s)[ROWS / 2], const float* base, float factor, int left, bool diagonal, int first, int key) {
    int pair = (threadIdx.x & 3) * 2;
    #pragma unroll
    for (int n = 0; n < 8; n++) {
        float2 b = *(const float2*)(base + pair + n * 8);
        float low = b.x * LOG2E, high = b.y * LOG2E;
        s[n * 4] = exp2_fast(s[n * 4] * factor - low);
        s[n * 4 + 1] = exp2_fast(s[n * 4 + 1] * factor - high);
        s[n * 4 + 2] = exp2_fast(s[n * 4 + 2] * factor - low);
        s[n * 4 + 3] = exp2_fast(s[n * 4 + 3] * factor - high);
    }
    if (left < ROWS || diagonal) {
        #pragma unroll
        for (int i = 0; i < ROWS / 2; i++) {
            int query = (i >> 2) * 8 + pair + (i & 1);
            if (query >= left || (diagonal && first + query < key + ((i >> 1) & 1) * 8)) s[i] = 0.0f;
        }
    }
}

// dp less the queries' deltas.
__device__ __forceinline__ void drop_deltas(float (&dp)[ROWS / 2], const float* drop) {
    #pragma unroll
    for (int n = 0; n < 8; n++) {
        float2 d = *(const float2*)(drop + (threadIdx.x & 3) * 2 + n * 8);
        dp[n * 4] -= d.x;
        dp[n * 4 + 1] -= d.y;
        dp[n * 4 + 2] -= d.x;
        dp[n * 4 + 3] -= d.y;
    }
}

// Writes the lane's two rows, `key` and key + 8 of the segment, of what was summed: to dk or dv, or where there are parts to those.
template <int DIM>
__device__ __forceinline__ void write_keys(
    bf16* to, int stride, float* parts, i64 start, int key, int len, int kv_head, int head_group, int groups, const float (&grad)[DIM / 2], float times) {
    #pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = key + h * 8;
        bool there = row < len;
        if (!parts) {
            write_row(there ? to + (start + row) * stride + kv_head * DIM : nullptr, grad, h, times);
        } else if (there) {
            float* part = parts + ((start + row) * groups + head_group) * DIM + (threadIdx.x & 3) * 2;
            #pragma unroll
            for (int n = 0; n < DIM / 8; n++) *(float2*)(part + n * 8) = make_float2(grad[n * 4 + 2 * h] * times, grad[n * 4 + 2 * h + 1] * times);
        }
    }
}

#define EXCHANGE (ROWS * ROWS * 2)

template <int DIM, int SLOTS>
__device__ __forceinline__ void attend_rows_backward_kv(
    bf16* dk, bf16* dv, float* dk_parts, float* dv_parts, const Map& d_out, const float* lse, const float* deltas, const Map& q,
    const bf16* k, const bf16* v, int dk_stride, int dv_stride, int k_stride, int v_stride, const int* segments, const int* tiles,
    int tokens, int heads, int kv_heads, int together, int causal, float scale) {
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int TILE = ROWS * DIM * 2;
    int head_group = blockIdx.x / CLUSTER, groups = gridDim.x / CLUSTER, first_head = head_group * together;
    int kv_head = first_head / (heads / kv_heads), place_of_tile = gridDim.y - 1 - blockIdx.y, index = tiles[place_of_tile * 2 + 1];
    if (index % CLUSTER != 0) return;
    const int* segment = segments + tiles[place_of_tile * 2] * 6;
    int len = segment[LEN], first_key = (index + rank_in_pair()) * ROWS;
    i64 start = segment[START];
    // Of both blocks; what the second block's keys do not see of it is masked.
    Seers seers = {segments, segment, causal ? index : 0, first_head, together};
    u32 keys = shared_address(shared), values = keys + TILE, queries = values + TILE, outs = queries + SLOTS * TILE;
    u32 exchange = outs + SLOTS * TILE, bases = exchange + 2 * EXCHANGE, drops = bases + SLOTS * ROWS * 4;
    u32 barriers = drops + SLOTS * ROWS * 4, full_q = barriers, empty_q = full_q + SLOTS * 8, full_o = empty_q + SLOTS * 8;
    u32 empty_o = full_o + SLOTS * 8, full_held = empty_o + SLOTS * 8, full_p = full_held + 8, empty_p = full_p + 16;
    if (threadIdx.x == 0) {
        start_ring<SLOTS>(full_q, empty_q, 1 + WARPGROUP);
        start_ring<SLOTS>(full_o, empty_o, 1 + WARPGROUP);
        start_barrier(full_held, WARPGROUP);
        for (int i = 0; i < 2; i++) {
            start_barrier(full_p + i * 8, 4);
            start_barrier(empty_p + i * 8, 4);
        }
    }
    meet();
    int group = __shfl_sync(FULL_MASK, threadIdx.x >> 7, 0), lane = threadIdx.x & 31;
    if (group == CONSUMERS) {
        fewer_registers<FETCHING>();
        Place<SLOTS> place;
        fetch_rows<DIM, ROWS>(keys, k + kv_head * DIM, k_stride, start + first_key, len - first_key);
        fetch_rows<DIM, ROWS>(values, v + kv_head * DIM, v_stride, start + first_key, len - first_key);
        announce_copies(full_held);
        seers.for_each([&](int head, int row, int, int left, bool) {
            i64 number = (i64)head * tokens + row;
            fetch_with_numbers<DIM>(place, queries, q, bases, lse + number, full_q, empty_q, head, row, left);
            fetch_with_numbers<DIM>(place, outs, d_out, drops, deltas + number, full_o, empty_o, head, row, left);
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
        await_rows(full_held, 0);
        if (group == 0) {
            auto ask = [&] {
                await(full_q + asked.slot * 8, asked.parity);
                begin_products();
                rows_by_rows<DIM, ROWS>(s, keys, queries + asked.slot * TILE);
                commit_products();
                asked.next();
            };
            ask();
            seers.for_each([&](int, int, int first, int left, bool own_segment) {
                wait_products<0>();
                settle(grad);
                settle(a);
                settle(s);
                bool diagonal = causal && own_segment && first < first_key + ROWS;
                weigh_keys(s, (const float*)(shared + (bases - keys)) + place.slot * ROWS, factor, left, diagonal, first, key);
                release_tile(empty_q + place.slot * 8);
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
                await(full_o + place.slot * 8, place.parity);
                begin_products();
                scores_by_rows(grad, a, outs + place.slot * TILE);
                commit_products();
                if (++at < count) {
                    ask();
                    wait_products<1>();
                } else {
                    wait_products<0>();
                }
                release_tile(empty_o + place.slot * 8);
                place.next();
            });
        } else {
            auto ask = [&] {
                await(full_o + asked.slot * 8, asked.parity);
                begin_products();
                rows_by_rows<DIM, ROWS>(s, values, outs + asked.slot * TILE);
                commit_products();
                asked.next();
            };
            ask();
            seers.for_each([&](int, int, int, int, bool) {
                wait_products<0>();
                settle(grad);
                settle(a);
                settle(s);
                drop_deltas(s, (const float*)(shared + (drops - keys)) + place.slot * ROWS);
                release_tile(empty_o + place.slot * 8);
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
                await(full_q + place.slot * 8, place.parity);
                begin_products();
                scores_by_rows(grad, a, queries + place.slot * TILE);
                commit_products();
                if (++at < count) {
                    ask();
                    wait_products<1>();
                } else {
                    wait_products<0>();
                }
                release_tile(empty_q + place.slot * 8);
                place.next();
            });
        }
        settle(grad);
        float* parts = group == 0 ? dv_parts : dk_parts;
        bf16* to = group == 0 ? dv : dk;
        int stride = group == 0 ? dv_stride : dk_stride;
        float times = group == 0 ? 1.0f : scale;
        write_keys<DIM>(to, stride, parts, start, key, len, kv_head, head_group, groups, grad, times);
    }
    meet();
}

// As attend_backward_kv_256 of attention.cu, but what comes with queries is described by maps.
// Grid: (2 · heads / together, tiles); block: 384; dynamic shared memory: 214272 bytes.
extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(BLOCK, 1) attend_rows_backward_kv_256(
    bf16* dk, bf16* dv, float* dk_parts, float* dv_parts, const __grid_constant__ Map d_out, const float* lse, const float* deltas,
    const __grid_constant__ Map q, const bf16* k, const bf16* v, int dk_stride, int dv_stride, int k_stride, int v_stride,
    const int* segments, const int* tiles, int tokens, int heads, int kv_heads, int together, int causal, float scale) {
    after_others();
    attend_rows_backward_kv<256, 2>(dk, dv, dk_parts, dv_parts, d_out, lse, deltas, q, k, v, dk_stride, dv_stride, k_stride, v_stride,
        segments, tiles, tokens, heads, kv_heads, together, causal, scale);
}

// The same where a warpgroup has registers for both sums: each has 64 keys, a block 128 and a cluster 256.
template <int DIM, int SLOTS>
__device__ __forceinline__ void attend_rows_backward_both(
    bf16* dk, bf16* dv, float* dk_parts, float* dv_parts, const Map& d_out, const float* lse, const float* deltas, const Map& q,
    const bf16* k, const bf16* v, int dk_stride, int dv_stride, int k_stride, int v_stride, const int* segments, const int* tiles,
    int tokens, int heads, int kv_heads, int together, int causal, float scale) {
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int TILE = ROWS * DIM * 2;
    int head_group = blockIdx.x / CLUSTER, groups = gridDim.x / CLUSTER, first_head = head_group * together;
    int kv_head = first_head / (heads / kv_heads), place_of_tile = gridDim.y - 1 - blockIdx.y, index = tiles[place_of_tile * 2 + 1];
    if (index % (CLUSTER * CONSUMERS) != 0) return;
    const int* segment = segments + tiles[place_of_tile * 2] * 6;
    int len = segment[LEN], first_key = (index + rank_in_pair() * CONSUMERS) * ROWS;
    i64 start = segment[START];
    Seers seers = {segments, segment, causal ? index : 0, first_head, together};
    u32 keys = shared_address(shared), values = keys + CONSUMERS * TILE, queries = values + CONSUMERS * TILE, outs = queries + SLOTS * TILE;
    u32 bases = outs + SLOTS * TILE, drops = bases + SLOTS * ROWS * 4, full_q = drops + SLOTS * ROWS * 4, empty_q = full_q + SLOTS * 8;
    u32 full_o = empty_q + SLOTS * 8, empty_o = full_o + SLOTS * 8, full_held = empty_o + SLOTS * 8;
    if (threadIdx.x == 0) {
        start_ring<SLOTS>(full_q, empty_q, 1 + WARPGROUP);
        start_ring<SLOTS>(full_o, empty_o, 1 + WARPGROUP);
        start_barrier(full_held, WARPGROUP);
    }
    meet();
    int group = __shfl_sync(FULL_MASK, threadIdx.x >> 7, 0);
    if (group == CONSUMERS) {
        fewer_registers<FETCHING>();
        Place<SLOTS> place;
        #pragma unroll
        for (int i = 0; i < CONSUMERS; i++) {
            int first = first_key + i * ROWS;
            fetch_rows<DIM, ROWS>(keys + i * TILE, k + kv_head * DIM, k_stride, start + first, len - first);
            fetch_rows<DIM, ROWS>(values + i * TILE, v + kv_head * DIM, v_stride, start + first, len - first);
        }
        announce_copies(full_held);
        seers.for_each([&](int head, int row, int, int left, bool) {
            i64 number = (i64)head * tokens + row;
            fetch_with_numbers<DIM>(place, queries, q, bases, lse + number, full_q, empty_q, head, row, left);
            fetch_with_numbers<DIM>(place, outs, d_out, drops, deltas + number, full_o, empty_o, head, row, left);
            place.next();
        });
    } else {
        more_registers<MULTIPLYING>();
        first_key += group * ROWS;
        int key = first_key + ((threadIdx.x >> 5) & 3) * 16 + ((threadIdx.x & 31) >> 2);
        const float* bases_at = (const float*)(shared + (bases - keys));
        const float* drops_at = (const float*)(shared + (drops - keys));
        keys += group * TILE;
        values += group * TILE;
        float grad_k[DIM / 2], grad_v[DIM / 2], s[ROWS / 2], dp[ROWS / 2], factor = scale * LOG2E;
        u32 p[ROWS / 16][4], ds[ROWS / 16][4];
        Place<SLOTS> place;
        clear(grad_k);
        clear(grad_v);
        await_rows(full_held, 0);
        seers.for_each([&](int, int, int first, int left, bool own_segment) {
            await(full_q + place.slot * 8, place.parity);
            begin_products();
            rows_by_rows<DIM, ROWS>(s, keys, queries + place.slot * TILE);
            commit_products();
            await(full_o + place.slot * 8, place.parity);
            rows_by_rows<DIM, ROWS>(dp, values, outs + place.slot * TILE);
            commit_products();
            wait_products<1>();
            settle(s);
            bool diagonal = causal && own_segment && first < first_key + ROWS;
            weigh_keys(s, bases_at + place.slot * ROWS, factor, left, diagonal, first, key);
            as_a(p, s);
            settle(p);
            begin_products();
            scores_by_rows(grad_v, p, outs + place.slot * TILE);
            commit_products();
            wait_products<1>();
            settle(dp);
            drop_deltas(dp, drops_at + place.slot * ROWS);
            #pragma unroll
            for (int i = 0; i < ROWS / 2; i++) s[i] *= dp[i];
            as_a(ds, s);
            settle(ds);
            begin_products();
            scores_by_rows(grad_k, ds, queries + place.slot * TILE);
            commit_products();
            wait_products<0>();
            settle(grad_k);
            settle(grad_v);
            settle(p);
            settle(ds);
            release_tile(empty_q + place.slot * 8);
            release_tile(empty_o + place.slot * 8);
            place.next();
        });
        write_keys<DIM>(dv, dv_stride, dv_parts, start, key, len, kv_head, head_group, groups, grad_v, 1.0f);
        write_keys<DIM>(dk, dk_stride, dk_parts, start, key, len, kv_head, head_group, groups, grad_k, scale);
    }
    meet();
}

// Grid and block as of attend_rows_backward_kv_256; dynamic shared memory: 198912 bytes.
extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(BLOCK, 1) attend_rows_backward_kv_128(
    bf16* dk, bf16* dv, float* dk_parts, float* dv_parts, const __grid_constant__ Map d_out, const float* lse, const float* deltas,
    const __grid_constant__ Map q, const bf16* k, const bf16* v, int dk_stride, int dv_stride, int k_stride, int v_stride,
    const int* segments, const int* tiles, int tokens, int heads, int kv_heads, int together, int causal, float scale) {
    after_others();
    attend_rows_backward_both<128, 4>(dk, dv, dk_parts, dv_parts, d_out, lse, deltas, q, k, v, dk_stride, dv_stride, k_stride, v_stride,
        segments, tiles, tokens, heads, kv_heads, together, causal, scale);
}
