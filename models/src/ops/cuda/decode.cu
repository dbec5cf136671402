// Reading one token of each running sequence: everything of a step but the matrix products.
//
// All state lies in device memory, so that a step can be one CUDA graph. `state` is [STATE_FIELDS, capacity] of int:
// one column for each row of the step's batch.
//   TOKEN        the token to be read next              OWN_SLOT     the row's slot in the own cache; -1: the row is idle
//   POSITION     its position                           OWN_LEN      tokens in the own cache
//   PROMPT_SLOT  the prompt's slot in the prompt cache  PROMPT_LEN   tokens of the prompt
//   USER, SAMPLE what the draws are keyed by            DRAWN        tokens drawn so far
//   ENDED        0 while running; 1: at an end token; 2: at the limit
//
// Caches, one for keys and one for values: bf16 [slots, kv_heads, capacity, dim]. Rows of one prompt share its slot.

#define TOKEN 0
#define POSITION 1
#define OWN_SLOT 2
#define OWN_LEN 3
#define PROMPT_SLOT 4
#define PROMPT_LEN 5
#define USER 6
#define SAMPLE 7
#define DRAWN 8
#define ENDED 9
#define STATE_FIELDS 10

// Puts new sequences into rows. `entries`: int [count, 5] of row, prompt slot, prompt tokens, user, sample.
// Grid: count / 128 rounded up; block: 128.
extern "C" __global__ void start_rows(int* state, int capacity, const int* entries, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const int* e = entries + i * 5;
    int* column = state + e[0];
    column[TOKEN * capacity] = 0;
    column[POSITION * capacity] = e[2];
    column[OWN_SLOT * capacity] = e[0];
    column[OWN_LEN * capacity] = 0;
    column[PROMPT_SLOT * capacity] = e[1];
    column[PROMPT_LEN * capacity] = e[2];
    column[USER * capacity] = e[3];
    column[SAMPLE * capacity] = e[4];
    column[DRAWN * capacity] = 0;
    column[ENDED * capacity] = 0;
}

// out[i] = table[indices[i]] · scale, rounded to out's type. out [rows, width], table bf16 [any, width]; width % 8 == 0.
// Also gathers rows of any bf16 matrix. Grid: rows; block: any.
template <class T>
__device__ __forceinline__ void gather(T* out, const bf16* table, const int* indices, int width, float scale) {
    i64 row = blockIdx.x;
    const bf16* from = table + (i64)indices[row] * width;
    for (int i = threadIdx.x * 8; i < width; i += blockDim.x * 8) {
        float x[8];
        load8(from + i, x);
        #pragma unroll
        for (int j = 0; j < 8; j++) x[j] *= scale;
        store8(out + row * width + i, x);
    }
}

extern "C" __global__ void gather_bf16(bf16* out, const bf16* table, const int* indices, int width, float scale) {
    gather(out, table, indices, width, scale);
}

extern "C" __global__ void gather_f32(float* out, const bf16* table, const int* indices, int width, float scale) {
    gather(out, table, indices, width, scale);
}

// residual += delta (none where null), then out = RMSNorm(residual) · (weight + plus) (Zhang & Sennrich, 2019).
// residual [rows, width] in bf16 or f32, delta and out bf16, weight f32 [width]; plus is 1 for Gemma, else 0.
// The norm is of the rounded residual. width % 8 == 0 and at most 32 · block. Grid: rows; block: 256 (512 beyond 8192).
template <class T>
__device__ __forceinline__ void add_rms_norm(T* residual, const bf16* delta, bf16* out, const float* weight, int width, float eps, float plus) {
    __shared__ float scratch[32];
    i64 start = (i64)blockIdx.x * width;
    float x[4][8], squares = 0.0f;
    #pragma unroll
    for (int c = 0; c < 4; c++) {
        int i = (c * blockDim.x + threadIdx.x) * 8;
        if (i < width) {
            load8(residual + start + i, x[c]);
            if (delta) {
                float d[8];
                load8(delta + start + i, d);
                #pragma unroll
                for (int j = 0; j < 8; j++) x[c][j] += d[j];
                if (sizeof(T) == 2) {
                    #pragma unroll
                    for (int j = 0; j < 8; j++) x[c][j] = to_f32(to_bf16(x[c][j]));
                }
                store8(residual + start + i, x[c]);
            }
            #pragma unroll
            for (int j = 0; j < 8; j++) squares += x[c][j] * x[c][j];
        }
    }
    float factor = rsqrtf(block_sum(squares, scratch) / width + eps);
    #pragma unroll
    for (int c = 0; c < 4; c++) {
        int i = (c * blockDim.x + threadIdx.x) * 8;
        if (i < width) {
            float w[8];
            load8(weight + i, w);
            #pragma unroll
            for (int j = 0; j < 8; j++) w[j] = x[c][j] * factor * (w[j] + plus);
            store8(out + start + i, w);
        }
    }
}

extern "C" __global__ void add_rms_norm_bf16(bf16* residual, const bf16* delta, bf16* out, const float* weight, int width, float eps, float plus) {
    add_rms_norm(residual, delta, out, weight, width, eps, plus);
}

extern "C" __global__ void add_rms_norm_f32(float* residual, const bf16* delta, bf16* out, const float* weight, int width, float eps, float plus) {
    add_rms_norm(residual, delta, out, weight, width, eps, plus);
}

// Adds biases, rotates queries and keys (Su et al., 2021; halves apart), and writes keys and values to a cache.
// qkv: bf16 [rows, (heads + 2 · kv_heads) · dim], changed in place; bias: f32, one row of that width, or null;
// cosines, sines: f32 [positions, dim / 2]; positions [rows].
// Caches: null, or [slots, kv_heads, capacity, dim] written at (slots[row], ·, places[row]) where slots[row] >= 0 and
// places[row] < capacity. dim % 16 == 0. Serves decoding (slots = OWN_SLOT, places = OWN_LEN) and prefill.
// Grid: rows; block: 256 or less.
extern "C" __global__ void rotate_and_cache(
    bf16* qkv, const float* bias, const float* cosines, const float* sines, const int* positions, const int* slots,
    const int* places, bf16* keys, bf16* values, int heads, int kv_heads, int dim, int capacity) {
    i64 row = blockIdx.x;
    bf16* x = qkv + row * (heads + 2 * kv_heads) * dim;
    int half = dim / 2, pieces = half / 8;
    const float* cosine = cosines + (i64)positions[row] * half;
    const float* sine = sines + (i64)positions[row] * half;
    int slot = keys ? slots[row] : -1, place = keys ? places[row] : 0;
    bool cached = slot >= 0 && place >= 0 && place < capacity;
    int items = (heads + 2 * kv_heads) * pieces;
    for (int item = threadIdx.x; item < items; item += blockDim.x) {
        int head = item / pieces, i = (item % pieces) * 8, at = head * dim + i;
        float a[8], b[8];
        load8(x + at, a);
        load8(x + at + half, b);
        if (bias) {
            #pragma unroll
            for (int j = 0; j < 8; j++) {
                a[j] = to_f32(to_bf16(a[j] + bias[at + j]));
                b[j] = to_f32(to_bf16(b[j] + bias[at + half + j]));
            }
        }
        if (head < heads + kv_heads) {
            float c[8], s[8];
            load8(cosine + i, c);
            load8(sine + i, s);
            #pragma unroll
            for (int j = 0; j < 8; j++) {
                float first = a[j] * c[j] - b[j] * s[j];
                b[j] = b[j] * c[j] + a[j] * s[j];
                a[j] = first;
            }
        }
        store8(x + at, a);
        store8(x + at + half, b);
        if (cached && head >= heads) {
            bool key = head < heads + kv_heads;
            int own = head - heads - (key ? 0 : kv_heads);
            bf16* to = (key ? keys : values) + (((i64)slot * kv_heads + own) * capacity + place) * dim + i;
            store8(to, a);
            store8(to + half, b);
        }
    }
}

// ---- attention of one query token a row over its prompt and its own tokens

struct DecodeAttention {
    bf16* out;              // [rows, heads · dim]
    const bf16* q;          // row r's queries at q + r · q_stride, [heads, dim]
    const bf16* prompt_keys, * prompt_values, * own_keys, * own_values;
    const int* state;
    float* partial;         // unused where splits == 1
};

// What one warp has seen: largest score, sum and mixture, for two of eight queries a lane.
template <int DIM, int WARPS, int STAGES>
__device__ __forceinline__ void attend_token(
    const DecodeAttention& p, int q_stride, int capacity, int heads, int kv_heads, int prompt_capacity, int own_capacity, float scale) {
    constexpr int PIECES = DIM / 8, STEPS = DIM / 16, TILE = 16 * DIM * 2;
    extern __shared__ __align__(128) unsigned char shared[];
    int row = blockIdx.z, split = blockIdx.x, splits = gridDim.x;
    int own_slot = p.state[OWN_SLOT * capacity + row];
    if (own_slot < 0) return;
    int prompt_slot = p.state[PROMPT_SLOT * capacity + row], prompt_len = p.state[PROMPT_LEN * capacity + row];
    int own_len = p.state[OWN_LEN * capacity + row] + 1;
    int shared_by = heads / kv_heads, tiles_of_queries = (shared_by + 7) / 8;
    int kv_head = blockIdx.y / tiles_of_queries, first_query = (blockIdx.y % tiles_of_queries) * 8;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, group = lane >> 2, pair = (lane & 3) * 2;

    const bf16* prompt_k = p.prompt_keys + ((i64)prompt_slot * kv_heads + kv_head) * prompt_capacity * DIM;
    const bf16* prompt_v = p.prompt_values + ((i64)prompt_slot * kv_heads + kv_head) * prompt_capacity * DIM;
    const bf16* own_k = p.own_keys + ((i64)own_slot * kv_heads + kv_head) * own_capacity * DIM;
    const bf16* own_v = p.own_values + ((i64)own_slot * kv_heads + kv_head) * own_capacity * DIM;
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
                i64 offset = valid ? (i64)base * DIM + at * 8 : 0;
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
    float* own = mixtures + warp * 8 * (DIM + 2);
    #pragma unroll
    for (int s = 0; s < STEPS; s++) {
        #pragma unroll
        for (int j = 0; j < 4; j++) own[(pair + (j & 1)) * (DIM + 2) + s * 16 + group + (j >> 1) * 8] = mixed[s][j];
    }
    if (group == 0) {
        #pragma unroll
        for (int j = 0; j < 2; j++) {
            own[(pair + j) * (DIM + 2) + DIM] = most[j];
            own[(pair + j) * (DIM + 2) + DIM + 1] = sum[j];
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

// Attention of each running row's token, which rotate_and_cache has put into the own cache, over its prompt and its own
// tokens. out [rows, heads · dim]; row r's queries, [heads, dim], at q + r · q_stride. Query heads kv · (heads / kv_heads).. share key head kv; scale
// multiplies the scores. Where splits > 1 the result is left in partial, f32 [rows, kv_heads · ceil(heads / kv_heads / 8),
// splits, 8, dim + 2], for join_splits.
// Grid: (splits, kv_heads · ceil(heads / kv_heads / 8), rows), with splits so that the grid fills the device a few times;
// block: 64 for 256, 128 for 128 and 64; dynamic shared memory: 98304 bytes for 256 and 128, 49152 for 64, which all must be
// asked for (the static part comes on top of 48 KB).
#define DECODE_ATTENTION(DIM, WARPS, STAGES)                                                                            \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) attend_token_##DIM(                                        \
        bf16* out, const bf16* q, int q_stride, const bf16* prompt_keys, const bf16* prompt_values, const bf16* own_keys, \
        const bf16* own_values, const int* state, int capacity, int heads, int kv_heads, int prompt_capacity,            \
        int own_capacity, float scale, float* partial) {                                                                \
        DecodeAttention p = {out, q, prompt_keys, prompt_values, own_keys, own_values, state, partial};                  \
        attend_token<DIM, WARPS, STAGES>(p, q_stride, capacity, heads, kv_heads, prompt_capacity, own_capacity, scale);  \
    }

DECODE_ATTENTION(64, 4, 3)
DECODE_ATTENTION(128, 4, 3)
DECODE_ATTENTION(256, 2, 3)

// The mixtures of all splits as one: out [rows, heads · dim]. splits <= 256. Grid: (heads, rows); block: max(32, dim / 4).
extern "C" __global__ void join_splits(
    bf16* out, const float* partial, const int* state, int capacity, int heads, int kv_heads, int splits, int dim) {
    __shared__ float weights[256];
    int head = blockIdx.x, row = blockIdx.y, lane = threadIdx.x & 31;
    if (state[OWN_SLOT * capacity + row] < 0) return;
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

// The same for any dim up to 256, slowly. Grid: (1, heads, rows); block: 128; no dynamic shared memory.
extern "C" __global__ void attend_token_any(
    bf16* out, const bf16* q, int q_stride, const bf16* prompt_keys, const bf16* prompt_values, const bf16* own_keys,
    const bf16* own_values, const int* state, int capacity, int heads, int kv_heads, int prompt_capacity, int own_capacity,
    float scale, int dim) {
    __shared__ float mixtures[4][258];
    int row = blockIdx.z, head = blockIdx.y, kv_head = head / (heads / kv_heads);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int own_slot = state[OWN_SLOT * capacity + row];
    if (own_slot < 0) return;
    int prompt_slot = state[PROMPT_SLOT * capacity + row], prompt_len = state[PROMPT_LEN * capacity + row];
    int len = prompt_len + state[OWN_LEN * capacity + row] + 1;
    i64 prompt_base = ((i64)prompt_slot * kv_heads + kv_head) * prompt_capacity * dim;
    i64 own_base = ((i64)own_slot * kv_heads + kv_head) * own_capacity * dim;
    const bf16* query = q + (i64)row * q_stride + head * dim;
    float most = -INFINITE, sum = 0.0f, mixed[8] = {};
    for (int t = warp; t < len; t += 4) {
        bool prompt = t < prompt_len;
        const bf16* k = prompt ? prompt_keys + prompt_base + (i64)t * dim : own_keys + own_base + (i64)(t - prompt_len) * dim;
        const bf16* v = prompt ? prompt_values + prompt_base + (i64)t * dim : own_values + own_base + (i64)(t - prompt_len) * dim;
        float score = 0.0f;
        for (int i = lane; i < dim; i += 32) score += to_f32(query[i]) * to_f32(k[i]);
        score = warp_sum(score) * scale * LOG2E;
        float m = fmaxf(most, score), shrink = exp2_fast(most - m), weight = exp2_fast(score - m);
        most = m;
        sum = sum * shrink + weight;
        #pragma unroll
        for (int j = 0; j < 8; j++) {
            int i = j * 32 + lane;
            if (i < dim) mixed[j] = mixed[j] * shrink + weight * to_f32(v[i]);
        }
    }
    #pragma unroll
    for (int j = 0; j < 8; j++) mixtures[warp][j * 32 + lane] = mixed[j];
    if (lane == 0) {
        mixtures[warp][256] = most;
        mixtures[warp][257] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < dim; i += 128) {
        float m = -INFINITE, total = 0.0f, value = 0.0f;
        for (int w = 0; w < 4; w++) m = fmaxf(m, mixtures[w][256]);
        for (int w = 0; w < 4; w++) {
            float weight = mixtures[w][256] == -INFINITE ? 0.0f : exp2_fast(mixtures[w][256] - m);
            total += weight * mixtures[w][257];
            value += weight * mixtures[w][i];
        }
        out[((i64)row * heads + head) * dim + i] = to_bf16(value / total);
    }
}

// out = activation(gate) · up. x: bf16 [rows, 2 · width], gate before up; out: bf16 [rows, width]; width % 8 == 0.
// kind: SILU, GELU or GELU_TANH. Grid: (ceil(width / 8 / block), rows); block: any.
extern "C" __global__ void gated_activation(bf16* out, const bf16* x, int width, int kind) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i >= width) return;
    i64 row = blockIdx.y;
    float gate[8], up[8];
    load8(x + row * 2 * width + i, gate);
    load8(x + row * 2 * width + width + i, up);
    #pragma unroll
    for (int j = 0; j < 8; j++) gate[j] = activate(kind, gate[j]) * up[j];
    store8(out + row * width + i, gate);
}

// ---- drawing tokens, with the numbers of `models/src/sample/draw.rs`

// ln x as the sampler on the host computes it, operation by operation.
__device__ float host_ln(float x) {
    int bits = __float_as_int(x), shifted = bits - 0x3f3504f3;
    float exponent = __int2float_rn(shifted >> 23);
    float m = __fsub_rn(__int_as_float(bits - (shifted & ~0x7fffff)), 1.0f);
    const float coefficients[8] = {-0.1151461f, 0.11676999f, -0.12420141f, 0.14249323f, -0.16668057f, 0.20000715f, -0.24999994f, 0.3333333f};
    float p = 7.0376836e-2f;
    #pragma unroll
    for (int i = 0; i < 8; i++) p = __fadd_rn(__fmul_rn(p, m), coefficients[i]);
    float square = __fmul_rn(m, m);
    float value = __fmul_rn(__fmul_rn(p, m), square);
    value = __fsub_rn(__fadd_rn(value, __fmul_rn(exponent, -2.1219444e-4f)), __fmul_rn(0.5f, square));
    return __fadd_rn(__fadd_rn(m, value), __fmul_rn(exponent, 0.6933594f));
}

// −ln(1 − w) as the sampler on the host computes it.
__device__ float host_exponential(u32 word) {
    float w = __fmul_rn(__fadd_rn(__uint2float_rn(word), 0.5f), 1.0f / 4294967296.0f);
    float rest = fmaxf(__fsub_rn(1.0f, w), 1.0f / 16777216.0f);
    float lost = __fsub_rn(__fsub_rn(1.0f, rest), w);
    float value = -__fadd_rn(host_ln(rest), __fdiv_rn(lost, rest));
    return w < 1e-4f ? __fadd_rn(w, __fmul_rn(__fmul_rn(0.5f, w), w)) : value;
}

// The noise to within 0.25 (a hundredth, but for the largest words), with the hardware's logarithm.
__device__ __forceinline__ float rough_noise(u32 word) {
    float w = fmaf(__uint2float_rn(word), 1.0f / 4294967296.0f, 0.5f / 4294967296.0f);
    float e = w < 0.015625f ? w * (1.0f + 0.5f * w) : -LN2 * __log2f(fmaxf(1.0f - w, 1.0f / 16777216.0f));
    return -LN2 * __log2f(e);
}

// Integers in the order of floats.
__device__ __forceinline__ int ordered(float x) {
    int bits = __float_as_int(x);
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

struct Draw {
    float value, most, sum;  // largest logit plus noise; largest logit and Σ e^(logit − most)
    int token;
};

__device__ __forceinline__ void join(Draw& a, const Draw& b) {
    if (b.value > a.value || (b.value == a.value && b.token < a.token)) {
        a.value = b.value;
        a.token = b.token;
    }
    float m = fmaxf(a.most, b.most);
    a.sum = m == -INFINITE ? 0.0f : a.sum * exp_fast(a.most - m) + b.sum * exp_fast(b.most - m);
    a.most = m;
}

__device__ __forceinline__ Draw shuffled(const Draw& a, int step) {
    return Draw{__shfl_xor_sync(FULL_MASK, a.value, step), __shfl_xor_sync(FULL_MASK, a.most, step),
                __shfl_xor_sync(FULL_MASK, a.sum, step), __shfl_xor_sync(FULL_MASK, a.token, step)};
}

// Draws a token for each row of logits and takes the row's sequence a step on.
//
// logits [rows, vocabulary], row r at logits + r · stride; rows: the column of `state` that each belongs to, or null: its
// own index. Sequences that are idle are left as they are.
// settings: 32-bit words in device memory: seed's low and high word, update, 1 / temperature (f32), limit, count of end
// tokens, end tokens. tokens (int), logprobs (f32): [capacity, width], width >= limit: what was drawn.
// advance: 1 after a token was read (a step), 0 after a prompt. scratch: 16 bytes [rows, parts];
// counters: int [rows], zero before the first launch, left at zero.
// Grid: (parts, rows), parts so that the grid fills the device; block: 256.
template <class T>
__device__ __forceinline__ void draw_tokens(
    const T* logits, i64 stride, int vocabulary, const int* rows, int* state, int capacity, const u32* settings, int* tokens,
    float* logprobs, int width, int advance, Draw* scratch, int* counters) {
    __shared__ Draw found[32];
    __shared__ int best;
    int part = blockIdx.x, parts = gridDim.x, column = rows ? rows[blockIdx.y] : blockIdx.y;
    if (state[OWN_SLOT * capacity + column] < 0) return;
    const T* x = logits + blockIdx.y * stride;
    u32 user = state[USER * capacity + column], sample = state[SAMPLE * capacity + column];
    int position = state[DRAWN * capacity + column];
    float inverse = __uint_as_float(settings[3]);
    bool whole = ((u64)x & 15) == 0;
    if (threadIdx.x == 0) best = ordered(-INFINITE);
    __syncthreads();

    // A draw is exact where it may win: wherever the rough value comes near the largest rough value.
    Draw own = {-INFINITE, -INFINITE, 0.0f, 0};
    int eights = (vocabulary + 7) / 8;
    int from = (int)((i64)eights * part / parts), to = (int)((i64)eights * (part + 1) / parts);
    for (int base = from; base < to; base += blockDim.x) {
        int eight = base + threadIdx.x, start = eight * 8;
        float logit[8], rough[8], m = -INFINITE, most = -INFINITE;
        u32 words[8];
        if (eight < to) {
            if (whole && start + 8 <= vocabulary) {
                load8(x + start, logit);
            } else {
                #pragma unroll
                for (int j = 0; j < 8; j++) logit[j] = start + j < vocabulary ? to_f32(x[start + j]) : -INFINITE;
            }
            #pragma unroll
            for (int half = 0; half < 2; half++) {
                u32 quad = (u32)(start / 4 + half);
                uint4 w = philox(make_uint4(quad | sample << 24, (u32)position, user, settings[2]), settings[0], settings[1]);
                words[half * 4] = w.x; words[half * 4 + 1] = w.y; words[half * 4 + 2] = w.z; words[half * 4 + 3] = w.w;
            }
            #pragma unroll
            for (int j = 0; j < 8; j++) {
                if (inverse != 1.0f) logit[j] = __fmul_rn(logit[j], inverse);
                rough[j] = logit[j] + rough_noise(words[j]);
                m = fmaxf(m, rough[j]);
                most = fmaxf(most, logit[j]);
            }
            if (most > own.most) {
                own.sum *= exp_fast(own.most - most);
                own.most = most;
            }
            if (own.most > -INFINITE) {
                #pragma unroll
                for (int j = 0; j < 8; j++) own.sum += exp_fast(logit[j] - own.most);
            }
        }
        int largest = __reduce_max_sync(FULL_MASK, ordered(m));
        int known = *(volatile int*)&best;
        if (largest > known && (threadIdx.x & 31) == 0) atomicMax(&best, largest);
        known = max(known, largest);
        float bar = __int_as_float(known ^ ((known >> 31) & 0x7fffffff)) - 0.5f;
        if (eight < to && m >= bar) {
            #pragma unroll
            for (int j = 0; j < 8; j++) {
                if (rough[j] >= bar) {
                    float value = __fsub_rn(logit[j], host_ln(host_exponential(words[j])));
                    if (value > own.value || (value == own.value && start + j < own.token)) {
                        own.value = value;
                        own.token = start + j;
                    }
                }
            }
        }
    }
    #pragma unroll
    for (int step = 16; step > 0; step >>= 1) join(own, shuffled(own, step));
    if ((threadIdx.x & 31) == 0) found[threadIdx.x >> 5] = own;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int w = 1; w < (int)blockDim.x / 32; w++) join(own, found[w]);
    if (parts > 1) {
        Draw* places = scratch + (i64)blockIdx.y * parts;
        *(float4*)(places + part) = make_float4(own.value, own.most, own.sum, __int_as_float(own.token));
        __threadfence();
        if (atomicAdd(counters + blockIdx.y, 1) != parts - 1) return;
        __threadfence();
        for (int i = 0; i < parts; i++) {
            float4 raw = __ldcg((const float4*)(places + i));
            Draw other = {raw.x, raw.y, raw.z, __float_as_int(raw.w)};
            if (i == 0) own = other; else join(own, other);
        }
        counters[blockIdx.y] = 0;
    }
    float logit = to_f32(x[own.token]);
    if (inverse != 1.0f) logit = __fmul_rn(logit, inverse);
    int limit = (int)settings[4], ends = (int)settings[5], ended = 0;
    if (position < width) {
        tokens[(i64)column * width + position] = own.token;
        logprobs[(i64)column * width + position] = logit - (own.most + logf(own.sum));
    }
    if (position + 1 >= limit) ended = 2;
    for (int i = 0; i < ends; i++) {
        if ((int)settings[6 + i] == own.token) ended = 1;
    }
    state[TOKEN * capacity + column] = own.token;
    state[DRAWN * capacity + column] = position + 1;
    if (advance) {
        state[OWN_LEN * capacity + column] += 1;
        state[POSITION * capacity + column] += 1;
    }
    if (ended) {
        state[ENDED * capacity + column] = ended;
        state[OWN_SLOT * capacity + column] = -1;
    }
}

extern "C" __global__ void draw_tokens_f32(
    const float* logits, i64 stride, int vocabulary, const int* rows, int* state, int capacity, const u32* settings, int* tokens,
    float* logprobs, int width, int advance, Draw* scratch, int* counters) {
    draw_tokens(logits, stride, vocabulary, rows, state, capacity, settings, tokens, logprobs, width, advance, scratch, counters);
}

extern "C" __global__ void draw_tokens_bf16(
    const bf16* logits, i64 stride, int vocabulary, const int* rows, int* state, int capacity, const u32* settings, int* tokens,
    float* logprobs, int width, int advance, Draw* scratch, int* counters) {
    draw_tokens(logits, stride, vocabulary, rows, state, capacity, settings, tokens, logprobs, width, advance, scratch, counters);
}
