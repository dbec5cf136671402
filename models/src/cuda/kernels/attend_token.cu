// Attention of a step of decoding on tensor cores, for bf16 and heads of 64, 128 and 256.

// As in decode.cu beside this file.
struct Slot {
    u32 prompt_start, prompt_len, own_start, count, user, sample, active, ended;
};

// ---- attention of one query token a row over its prompt and its own tokens

struct DecodeAttention {
    bf16* out;              // [rows, heads · dim]
    const bf16* q;          // row r's queries at q + r · q_stride, [heads, dim]
    const bf16* keys, * values; // [tokens, kv_heads, dim]
    const Slot* slots;
    const u32* chosen;
    float* partial;         // unused where splits == 1
};

// What one warp has seen: largest score, sum and mixture, for two of eight queries a lane.
template <int DIM, int WARPS, int STAGES>
__device__ __forceinline__ void attend_token(
    const DecodeAttention& p, int q_stride, int heads, int kv_heads, float scale) {
    constexpr int PIECES = DIM / 8, STEPS = DIM / 16, TILE = 16 * DIM * 2;
    extern __shared__ __align__(128) unsigned char shared[];
    int row = blockIdx.z, split = blockIdx.x, splits = gridDim.x;
    const Slot slot = p.slots[p.chosen[row]];
    if (!slot.active) return;
    int prompt_len = slot.prompt_len, own_len = slot.count;
    int shared_by = heads / kv_heads, tiles_of_queries = (shared_by + 7) / 8;
    int kv_head = blockIdx.y / tiles_of_queries, first_query = (blockIdx.y % tiles_of_queries) * 8;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, group = lane >> 2, pair = (lane & 3) * 2;

    i64 stride = (i64)kv_heads * DIM, own = slot.own_start;
    const bf16* prompt_k = p.keys + slot.prompt_start * stride + kv_head * DIM;
    const bf16* prompt_v = p.values + slot.prompt_start * stride + kv_head * DIM;
    const bf16* own_k = p.keys + own * stride + kv_head * DIM;
    const bf16* own_v = p.values + own * stride + kv_head * DIM;
    int prompt_tiles = (prompt_len + 15) / 16, tiles = prompt_tiles + (own_len + 15) / 16;
    int first = (int)((i64)tiles * split / splits), end = (int)((i64)tiles * (split + 1) / splits);
    int count = first + warp < end ? (end - first - warp + WARPS - 1) / WARPS : 0;

    // Queries as B: one query a group of lanes.
    u32 q[STEPS][2];
    {
        int query = first_query + group;
        const bf16* from = p.q + (i64)row * q_stride + (kv_head * shared_by + query) * DIM + pair;
        #pragma unroll
        for (int s = 0; s < STEPS; s++) {
            q[s][0] = query < shared_by ? *(const u32*)(from + s * 16) : 0u;
            q[s][1] = query < shared_by ? *(const u32*)(from + s * 16 + 8) : 0u;
        }
    }

    unsigned char* ring = shared + warp * STAGES * 2 * TILE;
    u32 ring_address = shared_address(ring);
    auto fetch = [&](int index) {
        if (index < count) {
            int tile = first + warp + index * WARPS;
            bool prompt = tile < prompt_tiles;
            int base = (prompt ? tile : tile - prompt_tiles) * 16, len = prompt ? prompt_len : own_len;
            const bf16* k = prompt ? prompt_k : own_k;
            const bf16* v = prompt ? prompt_v : own_v;
            u32 to = ring_address + (index % STAGES) * 2 * TILE;
            #pragma unroll
            for (int i = 0; i < PIECES / 2; i++) {
                int at = i * 32 + lane, r = at / PIECES, piece = at % PIECES;
                bool valid = base + r < len;
                i64 offset = valid ? (base + r) * stride + piece * 8 : 0;
                copy16(to + tile_offset<DIM>(r, piece), k + offset, valid);
                copy16(to + TILE + tile_offset<DIM>(r, piece), v + offset, valid);
            }
        }
        commit_copies();
    };

    float most[2] = {-INFINITE, -INFINITE}, sum[2] = {0.0f, 0.0f}, mixed[STEPS][4];
    #pragma unroll
    for (int s = 0; s < STEPS; s++) {
        #pragma unroll
        for (int j = 0; j < 4; j++) mixed[s][j] = 0.0f;
    }
    #pragma unroll
    for (int i = 0; i < STAGES - 1; i++) fetch(i);
    float factor = scale * LOG2E;
    for (int index = 0; index < count; index++) {
        wait_copies<STAGES - 2>();
        __syncwarp();
        fetch(index + STAGES - 1);
        int tile = first + warp + index * WARPS;
        bool prompt = tile < prompt_tiles;
        int left = (prompt ? prompt_len - tile * 16 : own_len - (tile - prompt_tiles) * 16);
        u32 k = ring_address + (index % STAGES) * 2 * TILE, v = k + TILE;
        float scores[4][4] = {};
        #pragma unroll
        for (int s = 0; s < STEPS; s++) {
            u32 a[4];
            load_matrices(a, k + tile_offset<DIM>(lane & 15, s * 2 + (lane >> 4)));
            mma(scores[s & 3], a, q[s][0], q[s][1]);
        }
        float x[4];
        #pragma unroll
        for (int j = 0; j < 4; j++) {
            x[j] = ((scores[0][j] + scores[1][j]) + (scores[2][j] + scores[3][j])) * factor;
            if (group + (j >> 1) * 8 >= left) x[j] = -INFINITE;
        }
        float shrink[2];
        #pragma unroll
        for (int j = 0; j < 2; j++) {
            float m = fmaxf(x[j], x[j + 2]);
            m = fmaxf(m, __shfl_xor_sync(FULL_MASK, m, 4));
            m = fmaxf(m, __shfl_xor_sync(FULL_MASK, m, 8));
            m = fmaxf(m, __shfl_xor_sync(FULL_MASK, m, 16));
            m = fmaxf(m, most[j]);
            shrink[j] = exp2_fast(most[j] - m);
            most[j] = m;
            x[j] = exp2_fast(x[j] - m);
            x[j + 2] = exp2_fast(x[j + 2] - m);
            sum[j] = sum[j] * shrink[j] + x[j] + x[j + 2];
        }
        u32 b0 = transpose_matrix(pack_bf16(x[0], x[1])), b1 = transpose_matrix(pack_bf16(x[2], x[3]));
        #pragma unroll
        for (int s = 0; s < STEPS; s++) {
            u32 a[4];
            load_matrices_transposed(a, v + tile_offset<DIM>(((lane >> 4) << 3) + (lane & 7), s * 2 + ((lane >> 3) & 1)));
            mixed[s][0] *= shrink[0];
            mixed[s][1] *= shrink[1];
            mixed[s][2] *= shrink[0];
            mixed[s][3] *= shrink[1];
            mma(mixed[s], a, b0, b1);
        }
    }
    wait_copies<0>();
    #pragma unroll
    for (int j = 0; j < 2; j++) {
        sum[j] += __shfl_xor_sync(FULL_MASK, sum[j], 4);
        sum[j] += __shfl_xor_sync(FULL_MASK, sum[j], 8);
        sum[j] += __shfl_xor_sync(FULL_MASK, sum[j], 16);
    }
    __syncthreads();

    // The warps' mixtures, [WARPS, 8, DIM + 2], where the tiles were.
    float* mixtures = (float*)shared;
    float* mine = mixtures + warp * 8 * (DIM + 2);
    #pragma unroll
    for (int s = 0; s < STEPS; s++) {
        #pragma unroll
        for (int j = 0; j < 4; j++) mine[(pair + (j & 1)) * (DIM + 2) + s * 16 + group + (j >> 1) * 8] = mixed[s][j];
    }
    if (group == 0) {
        #pragma unroll
        for (int j = 0; j < 2; j++) {
            mine[(pair + j) * (DIM + 2) + DIM] = most[j];
            mine[(pair + j) * (DIM + 2) + DIM + 1] = sum[j];
        }
    }
    __syncthreads();
    i64 place = ((i64)row * gridDim.y + blockIdx.y) * splits + split;
    float* values = p.partial + place * 8 * DIM;
    float* sums = p.partial + (i64)gridDim.z * gridDim.y * splits * 8 * DIM + place * 16;
    bf16* out = p.out + (i64)row * heads * DIM + (kv_head * shared_by + first_query) * DIM;
    for (int i = threadIdx.x; i < 8 * DIM; i += WARPS * 32) {
        int query = i / DIM, d = i % DIM;
        if (first_query + query >= shared_by) break;
        float m = -INFINITE, total = 0.0f, value = 0.0f;
        #pragma unroll
        for (int w = 0; w < WARPS; w++) m = fmaxf(m, mixtures[(w * 8 + query) * (DIM + 2) + DIM]);
        #pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float* from = mixtures + (w * 8 + query) * (DIM + 2);
            float weight = from[DIM] == -INFINITE ? 0.0f : exp2_fast(from[DIM] - m);
            total += weight * from[DIM + 1];
            value += weight * from[d];
        }
        if (splits == 1) {
            out[query * DIM + d] = to_bf16(value / total);
        } else {
            values[query * DIM + d] = value;
            if (d == 0) {
                sums[query * 2] = m;
                sums[query * 2 + 1] = total;
            }
        }
    }
}

// Attention of each active row's token, whose key and value are in the cache already, over its prompt and its own tokens. out [rows, heads · dim]; row r's queries, [heads, dim], at q + r · q_stride. Query heads kv · (heads / kv_heads).. share key head kv; scale
// multiplies the scores. Where splits > 1 the result is left in partial, f32 [rows, kv_heads · ceil(heads / kv_heads / 8),
// splits, 8, dim + 2], for join_splits.
// Grid: (splits, kv_heads · ceil(heads / kv_heads / 8), rows), with splits so that the grid fills the device a few times;
// block: 64 for 256, 128 for 128 and 64; dynamic shared memory: 98304 bytes for 256 and 128, 49152 for 64, which all must be
// asked for (the static part comes on top of 48 KB).
#define DECODE_ATTENTION(DIM, WARPS, STAGES)                                                                            \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) attend_token_##DIM(                                        \
        bf16* out, const bf16* q, int q_stride, const bf16* keys, const bf16* values, const Slot* slots,                 \
        const u32* chosen, int heads, int kv_heads, float scale, float* partial) {                                      \
        DecodeAttention p = {out, q, keys, values, slots, chosen, partial};                                             \
        attend_token<DIM, WARPS, STAGES>(p, q_stride, heads, kv_heads, scale);                                          \
    }

DECODE_ATTENTION(64, 4, 3)
DECODE_ATTENTION(128, 4, 3)
DECODE_ATTENTION(256, 2, 3)

// The mixtures of all splits as one: out [rows, heads · dim]. splits <= 256. Grid: (heads, rows); block: max(32, dim / 4).
extern "C" __global__ void join_splits(
    bf16* out, const float* partial, const Slot* slots, const u32* chosen, int heads, int kv_heads, int splits, int dim) {
    __shared__ float weights[256];
    int head = blockIdx.x, row = blockIdx.y, lane = threadIdx.x & 31;
    if (!slots[chosen[row]].active) return;
    int shared_by = heads / kv_heads, tiles = (shared_by + 7) / 8, query = head % shared_by;
    i64 place = ((i64)row * kv_heads * tiles + head / shared_by * tiles + query / 8) * splits;
    const float* values = partial + (place * 8 + query % 8) * dim;
    const float* sums = partial + (i64)gridDim.y * kv_heads * tiles * splits * 8 * dim + (place * 8 + query % 8) * 2;
    float most = -INFINITE, total = 0.0f;
    for (int s = lane; s < splits; s += 32) most = fmaxf(most, sums[s * 16]);
    most = warp_max(most);
    for (int s = lane; s < splits; s += 32) {
        float m = sums[s * 16], weight = m == -INFINITE ? 0.0f : exp2_fast(m - most);
        if (threadIdx.x < 32) weights[s] = weight;
        total += weight * sums[s * 16 + 1];
    }
    total = warp_sum(total);
    __syncthreads();
    int i = threadIdx.x * 4;
    if (i >= dim) return;
    float x[4] = {};
    #pragma unroll 8
    for (int s = 0; s < splits; s++) {
        float4 v = *(const float4*)(values + (i64)s * 8 * dim + i);
        x[0] += weights[s] * v.x; x[1] += weights[s] * v.y; x[2] += weights[s] * v.z; x[3] += weights[s] * v.w;
    }
    *(uint2*)(out + ((i64)row * heads + head) * dim + i) =
        make_uint2(pack_bf16(x[0] / total, x[1] / total), pack_bf16(x[2] / total, x[3] / total));
}

