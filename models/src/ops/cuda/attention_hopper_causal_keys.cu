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
