// One token of many sequences at a time. What stands where is in device memory, so that a step is the same launches every time
// and can be one CUDA graph: `slots[row]` is the sequence that a row of the step works on.

// A sequence's place and state. Its response so far has `count` tokens, of which all but the last are in the cache.
struct Slot {
    u32 prompt_start; // in tokens of the cache
    u32 prompt_len;
    u32 own_start;
    u32 count;
    u32 user;
    u32 sample;
    u32 active;
    u32 ended;
};

// The token that each row reads next, and its position. Grid: 1, block: rows.
extern "C" __global__ void next_tokens(u32* tokens, u32* positions, const Slot* slots, const u32* chosen, const u32* responses,
                                       int limit, int rows) {
    const int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    const Slot slot = slots[chosen[row]];
    const bool active = slot.active && slot.count > 0;
    tokens[row] = active ? responses[(u64)chosen[row] * limit + slot.count - 1] : 0;
    positions[row] = active ? slot.prompt_len + slot.count - 1 : 0;
}

// Puts keys and values of packed prompts in the cache: token i goes to places[i]. Grid: tokens.
extern "C" __global__ void store_prompt(T* keys, T* values, const T* k, const T* v, int stride, const u32* places, int width) {
    const u64 from = blockIdx.x, to = places[from];
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        keys[to * width + i] = k[from * stride + i];
        values[to * width + i] = v[from * stride + i];
    }
}

// For the new token of each row: rotates its queries in place, and puts its rotated key and its value in the cache of the row's
// sequence. A row has queries, keys and values. The table is that of `rotate` in rows.cu. Grid: (heads + 2 · kv_heads, rows),
// block: dim / 2 rounded up to a warp.
extern "C" __global__ void rotate_store(T* qkv, int stride, T* keys, T* values, const Slot* slots, const u32* chosen,
                                        const u32* positions, const float* table, int heads, int kv_heads, int dim) {
    const int head = blockIdx.x, row = blockIdx.y, half = dim / 2;
    const Slot slot = slots[chosen[row]];
    if (!slot.active) return;
    T* from = qkv + (u64)row * stride + head * dim;
    const u64 place = (u64)(slot.own_start + slot.count - 1) * kv_heads * dim;
    if (head >= heads + kv_heads) {
        T* to = values + place + (head - heads - kv_heads) * dim;
        for (int i = threadIdx.x; i < dim; i += blockDim.x) to[i] = from[i];
        return;
    }
    T* to = head < heads ? from : keys + place + (head - heads) * dim;
    const float* angles = table + (u64)positions[row] * dim;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        const float c = angles[i], s = angles[half + i];
        const float a = load(from[i]), b = load(from[half + i]);
        to[i] = store<T>(a * c - b * s);
        to[half + i] = store<T>(b * c + a * s);
    }
}

#define PARTS 8
#define MOST_SHARED 8

// Attention of each row's new token over its prompt and itself, a part of the keys each: sums, largest score and mixed values of
// every part, [rows, heads, parts, dim + 2] in f32. A warp takes every eighth key for all query heads of a key head, up to
// MOST_SHARED of them. Grid: (parts, kv_heads · groups, rows), block 256; shared memory: 8 warps · heads · (dim + 2) floats.
extern "C" __global__ void attend_step(float* partial, const T* q, int q_stride, const T* keys, const T* values,
                                       const Slot* slots, const u32* chosen, int heads, int shared, int dim, float scale) {
    extern __shared__ float gathered[];
    const Slot slot = slots[chosen[blockIdx.z]];
    const int groups = (shared + MOST_SHARED - 1) / MOST_SHARED;
    const int of = blockIdx.y / groups, first = (blockIdx.y % groups) * MOST_SHARED;
    const int own_heads = min(MOST_SHARED, shared - first);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    const int width = heads / shared * dim;
    const u32 length = slot.active ? slot.prompt_len + slot.count : 0;
    const u32 each = (length + gridDim.x - 1) / gridDim.x;
    const u32 begin = min(blockIdx.x * each, length), end = min(begin + each, length);
    float query[MOST_SHARED][PARTS], mixed[MOST_SHARED][PARTS], most[MOST_SHARED], total[MOST_SHARED];
#pragma unroll
    for (int h = 0; h < MOST_SHARED; ++h) {
        most[h] = __int_as_float(0xff800000);
        total[h] = 0.0f;
        const T* from = q + (u64)blockIdx.z * q_stride + (of * shared + first + h) * dim;
#pragma unroll
        for (int p = 0; p < PARTS; ++p) {
            const int i = p * 32 + lane;
            query[h][p] = h < own_heads && i < dim ? load(from[i]) * scale : 0.0f;
            mixed[h][p] = 0.0f;
        }
    }
    for (u32 key = begin + warp; key < end; key += warps) {
        const u64 place = key < slot.prompt_len ? slot.prompt_start + key : slot.own_start + (key - slot.prompt_len);
        const T* k = keys + place * width + of * dim;
        const T* v = values + place * width + of * dim;
        float other[PARTS], value[PARTS];
#pragma unroll
        for (int p = 0; p < PARTS; ++p) {
            const int i = p * 32 + lane;
            other[p] = i < dim ? load(k[i]) : 0.0f;
            value[p] = i < dim ? load(v[i]) : 0.0f;
        }
#pragma unroll
        for (int h = 0; h < MOST_SHARED; ++h) {
            if (h >= own_heads) break;
            float score = 0.0f;
#pragma unroll
            for (int p = 0; p < PARTS; ++p) score += query[h][p] * other[p];
            score = warp_sum(score);
            const float now = fmaxf(most[h], score), keep = expf(most[h] - now), weight = expf(score - now);
            total[h] = total[h] * keep + weight;
            most[h] = now;
#pragma unroll
            for (int p = 0; p < PARTS; ++p) mixed[h][p] = mixed[h][p] * keep + weight * value[p];
        }
    }
    const int row_width = dim + 2;
#pragma unroll
    for (int h = 0; h < MOST_SHARED; ++h) {
        if (h >= own_heads) break;
        float* to = gathered + (warp * MOST_SHARED + h) * row_width;
#pragma unroll
        for (int p = 0; p < PARTS; ++p) {
            const int i = p * 32 + lane;
            if (i < dim) to[i] = mixed[h][p];
        }
        if (lane == 0) {
            to[dim] = most[h];
            to[dim + 1] = total[h];
        }
    }
    __syncthreads();
    for (int h = warp; h < own_heads; h += warps) {
        float top = __int_as_float(0xff800000), sum = 0.0f;
        for (int w = 0; w < warps; ++w) top = fmaxf(top, gathered[(w * MOST_SHARED + h) * row_width + dim]);
        const int head = of * shared + first + h;
        float* to = partial + (((u64)blockIdx.z * heads + head) * gridDim.x + blockIdx.x) * row_width;
        float all[PARTS] = {};
        for (int w = 0; w < warps; ++w) {
            const float* from = gathered + (w * MOST_SHARED + h) * row_width;
            const float keep = from[dim + 1] > 0.0f ? expf(from[dim] - top) : 0.0f;
            sum += keep * from[dim + 1];
#pragma unroll
            for (int p = 0; p < PARTS; ++p) {
                const int i = p * 32 + lane;
                if (i < dim) all[p] += keep * from[i];
            }
        }
#pragma unroll
        for (int p = 0; p < PARTS; ++p) {
            const int i = p * 32 + lane;
            if (i < dim) to[i] = all[p];
        }
        if (lane == 0) {
            to[dim] = top;
            to[dim + 1] = sum;
        }
    }
}

// Joins the parts. Grid: (heads, rows), block 256.
extern "C" __global__ void attend_join(T* out, int stride, const float* partial, int parts, int dim) {
    const float* from = partial + ((u64)blockIdx.y * gridDim.x + blockIdx.x) * parts * (dim + 2);
    float top = __int_as_float(0xff800000), total = 0.0f;
    for (int p = 0; p < parts; ++p) top = fmaxf(top, from[p * (dim + 2) + dim]);
    for (int p = 0; p < parts; ++p) {
        const float sum = from[p * (dim + 2) + dim + 1];
        total += sum > 0.0f ? sum * expf(from[p * (dim + 2) + dim] - top) : 0.0f;
    }
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        float mixed = 0.0f;
        for (int p = 0; p < parts; ++p) {
            const float sum = from[p * (dim + 2) + dim + 1];
            mixed += sum > 0.0f ? from[p * (dim + 2) + i] * expf(from[p * (dim + 2) + dim] - top) : 0.0f;
        }
        out[(u64)blockIdx.y * stride + blockIdx.x * dim + i] = store<T>(total > 0.0f ? mixed / total : 0.0f);
    }
}

// −ln(1 − w), as the sampler on the processor computes it.
__device__ __forceinline__ float exponential(u32 word) {
    const float w = ((float)word + 0.5f) * (1.0f / 4294967296.0f);
    const float rest = fmaxf(1.0f - w, 1.0f / 16777216.0f);
    const float lost = (1.0f - rest) - w;
    const float value = -(logf(rest) + lost / rest);
    return w < 1e-4f ? w + 0.5f * w * w : value;
}

struct Best {
    float value; // logit plus noise
    u32 token;
    float logit;
    float most; // of the logits
    float total; // Σ exp(logit − most)
};

__device__ __forceinline__ Best better(Best a, Best b) {
    Best best = b.value > a.value || (b.value == a.value && b.token < a.token) ? b : a;
    best.most = fmaxf(a.most, b.most);
    best.total = (a.total > 0.0f ? a.total * expf(a.most - best.most) : 0.0f)
        + (b.total > 0.0f ? b.total * expf(b.most - best.most) : 0.0f);
    return best;
}

__device__ Best block_best(Best mine) {
    __shared__ Best parts[32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    for (int step = 16; step > 0; step >>= 1) {
        Best other;
        other.value = __shfl_xor_sync(0xffffffffu, mine.value, step);
        other.token = __shfl_xor_sync(0xffffffffu, mine.token, step);
        other.logit = __shfl_xor_sync(0xffffffffu, mine.logit, step);
        other.most = __shfl_xor_sync(0xffffffffu, mine.most, step);
        other.total = __shfl_xor_sync(0xffffffffu, mine.total, step);
        mine = better(mine, other);
    }
    if (lane == 0) parts[warp] = mine;
    __syncthreads();
    mine = parts[0];
    for (int w = 1; w < warps; ++w) mine = better(mine, parts[w]);
    return mine;
}

__device__ __forceinline__ Best nothing() {
    Best best;
    best.value = best.logit = best.most = __int_as_float(0xff800000);
    best.token = 0xffffffffu;
    best.total = 0.0f;
    return best;
}

// Draws from softmax(logits · inverse) by Gumbel-max: a part of the vocabulary each. The noise of a token depends on the run's
// seed, the update, and the sequence's user, sample and position alone. Grid: (parts, rows), block 256.
extern "C" __global__ void sample(Best* partial, const float* logits, const Slot* slots, const u32* chosen, int vocabulary,
                                  float inverse, u32 seed0, u32 seed1, u32 update) {
    const Slot slot = slots[chosen[blockIdx.y]];
    Best best = nothing();
    if (slot.active) {
        const float* row = logits + (u64)blockIdx.y * vocabulary;
        const int quads = (vocabulary + 3) / 4, each = (quads + gridDim.x - 1) / gridDim.x;
        const int end = min((int)(blockIdx.x + 1) * each, quads);
        float most = __int_as_float(0xff800000), total = 0.0f;
        for (int quad = blockIdx.x * each + threadIdx.x; quad < end; quad += blockDim.x) {
            const uint4 words = philox(make_uint4(quad | slot.sample << 24, slot.count, slot.user, update), seed0, seed1);
            const u32 word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int token = 4 * quad + i;
                if (token >= vocabulary) break;
                const float logit = row[token] * inverse;
                const float value = logit - logf(exponential(word[i]));
                if (value > best.value) {
                    best.value = value;
                    best.token = token;
                    best.logit = logit;
                }
                const float now = fmaxf(most, logit);
                total = total * expf(most - now) + expf(logit - now);
                most = now;
            }
        }
        best.most = most;
        best.total = total;
    }
    best = block_best(best);
    if (threadIdx.x == 0) partial[(u64)blockIdx.y * gridDim.x + blockIdx.x] = best;
}

// Takes the best of all parts, writes it down, and ends the sequence at an end token or the limit. Grid: rows, block 32.
extern "C" __global__ void sample_join(Slot* slots, u32* responses, float* logprobs, const Best* partial, int parts,
                                       const u32* chosen, const u32* ends, int end_count, int limit) {
    Slot* slot = slots + chosen[blockIdx.x];
    if (!slot->active) return;
    Best best = nothing();
    for (int p = threadIdx.x; p < parts; p += 32) best = better(best, partial[(u64)blockIdx.x * parts + p]);
    best = block_best(best);
    if (threadIdx.x != 0) return;
    const u64 at = (u64)chosen[blockIdx.x] * limit + slot->count;
    responses[at] = best.token;
    logprobs[at] = best.logit - best.most - logf(best.total);
    slot->count += 1;
    for (int e = 0; e < end_count; ++e)
        if (ends[e] == best.token) slot->ended = 1;
    if (slot->ended || slot->count >= limit) slot->active = 0;
}
