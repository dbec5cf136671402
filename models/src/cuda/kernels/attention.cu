// Attention over packed rows, for any element type and any head size up to 256: one warp a query and head. What a token sees and
// who sees it are ranges: `sees[4·i ..]` are the two ranges of keys of query i (a prompt shared by several responses, and its own
// row up to itself, or all of it), `seen[2·j ..]` the one range of queries that see key j.

#define PARTS 8 // of a head of 256 in a lane

__device__ __forceinline__ void read_head(float* to, const T* from, int dim, float scale) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int p = 0; p < PARTS; ++p) {
        const int i = p * 32 + lane;
        to[p] = i < dim ? load(from[i]) * scale : 0.0f;
    }
}

__device__ __forceinline__ float dot(const float* a, const float* b) {
    float sum = 0.0f;
#pragma unroll
    for (int p = 0; p < PARTS; ++p) sum += a[p] * b[p];
    return warp_sum(sum);
}

// out[i, h] = Σ softmax(q · k · scale) v, and the logarithm of the softmax' denominator in lse[h, i]. Grid: (tokens, heads / 4),
// block 128.
extern "C" __global__ void attend(T* out, int out_stride, float* lse, const T* q, int q_stride, const T* k, int k_stride,
                                  const T* v, int v_stride, const u32* sees, int heads, int shared, int dim, float scale) {
    const u64 token = blockIdx.x;
    const int head = blockIdx.y * 4 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    if (head >= heads) return;
    const int of = head / shared;
    float mine[PARTS], mixed[PARTS] = {}, other[PARTS];
    read_head(mine, q + token * q_stride + head * dim, dim, scale);
    float most = __int_as_float(0xff800000), total = 0.0f;
    for (int part = 0; part < 2; ++part) {
        const u32 end = sees[4 * token + 2 * part + 1];
        for (u32 key = sees[4 * token + 2 * part]; key < end; ++key) {
            read_head(other, k + (u64)key * k_stride + of * dim, dim, 1.0f);
            const float score = dot(mine, other);
            read_head(other, v + (u64)key * v_stride + of * dim, dim, 1.0f);
            const float now = fmaxf(most, score), keep = expf(most - now), weight = expf(score - now);
            total = total * keep + weight;
            most = now;
#pragma unroll
            for (int p = 0; p < PARTS; ++p) mixed[p] = mixed[p] * keep + weight * other[p];
        }
    }
    T* to = out + token * out_stride + head * dim;
#pragma unroll
    for (int p = 0; p < PARTS; ++p) {
        const int i = p * 32 + lane;
        if (i < dim) to[i] = store<T>(mixed[p] / total);
    }
    if (lane == 0) lse[(u64)head * gridDim.x + token] = most + logf(total);
}

// delta[h, i] = slope · out: what the softmax' backward pass takes from every score. Grid and block as above.
extern "C" __global__ void attend_delta(float* delta, const T* slope, int slope_stride, const T* out, int out_stride, int heads,
                                        int dim) {
    const u64 token = blockIdx.x;
    const int head = blockIdx.y * 4 + (threadIdx.x >> 5);
    if (head >= heads) return;
    float a[PARTS], b[PARTS];
    read_head(a, slope + token * slope_stride + head * dim, dim, 1.0f);
    read_head(b, out + token * out_stride + head * dim, dim, 1.0f);
    const float sum = dot(a, b);
    if ((threadIdx.x & 31) == 0) delta[(u64)head * gridDim.x + token] = sum;
}

// The gradient of the queries. Grid and block as above.
extern "C" __global__ void attend_queries(T* dq, int dq_stride, const T* slope, int slope_stride, const T* q, int q_stride,
                                          const T* k, int k_stride, const T* v, int v_stride, const float* lse,
                                          const float* delta, const u32* sees, int heads, int shared, int dim, float scale) {
    const u64 token = blockIdx.x;
    const int head = blockIdx.y * 4 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    if (head >= heads) return;
    const int of = head / shared;
    float mine[PARTS], dy[PARTS], sum[PARTS] = {}, other[PARTS];
    read_head(mine, q + token * q_stride + head * dim, dim, scale);
    read_head(dy, slope + token * slope_stride + head * dim, dim, 1.0f);
    const u64 at = (u64)head * gridDim.x + token;
    const float log_total = lse[at], take = delta[at];
    for (int part = 0; part < 2; ++part) {
        const u32 end = sees[4 * token + 2 * part + 1];
        for (u32 key = sees[4 * token + 2 * part]; key < end; ++key) {
            read_head(other, v + (u64)key * v_stride + of * dim, dim, 1.0f);
            const float reached = dot(dy, other);
            read_head(other, k + (u64)key * k_stride + of * dim, dim, 1.0f);
            const float slope_of_score = expf(dot(mine, other) - log_total) * (reached - take);
#pragma unroll
            for (int p = 0; p < PARTS; ++p) sum[p] += slope_of_score * other[p];
        }
    }
    T* to = dq + token * dq_stride + head * dim;
#pragma unroll
    for (int p = 0; p < PARTS; ++p) {
        const int i = p * 32 + lane;
        if (i < dim) to[i] = store<T>(sum[p] * scale);
    }
}

// The gradients of keys and values: one warp a key and key head. Grid: (tokens, kv_heads / 4), block 128.
extern "C" __global__ void attend_keys(T* dk, int dk_stride, T* dv, int dv_stride, const T* slope, int slope_stride, const T* q,
                                       int q_stride, const T* k, int k_stride, const T* v, int v_stride, const float* lse,
                                       const float* delta, const u32* seen, int heads, int shared, int dim, float scale) {
    const u64 key = blockIdx.x;
    const int of = blockIdx.y * 4 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    if (of >= heads / shared) return;
    float my_k[PARTS], my_v[PARTS], sum_k[PARTS] = {}, sum_v[PARTS] = {}, query[PARTS], dy[PARTS];
    read_head(my_k, k + key * k_stride + of * dim, dim, scale);
    read_head(my_v, v + key * v_stride + of * dim, dim, 1.0f);
    for (u32 token = seen[2 * key]; token < seen[2 * key + 1]; ++token) {
        for (int head = of * shared; head < (of + 1) * shared; ++head) {
            read_head(query, q + (u64)token * q_stride + head * dim, dim, 1.0f);
            read_head(dy, slope + (u64)token * slope_stride + head * dim, dim, 1.0f);
            const u64 at = (u64)head * gridDim.x + token;
            const float weight = expf(dot(query, my_k) - lse[at]);
            const float slope_of_score = weight * (dot(dy, my_v) - delta[at]);
#pragma unroll
            for (int p = 0; p < PARTS; ++p) {
                sum_v[p] += weight * dy[p];
                sum_k[p] += slope_of_score * query[p];
            }
        }
    }
#pragma unroll
    for (int p = 0; p < PARTS; ++p) {
        const int i = p * 32 + lane;
        if (i < dim) {
            dk[key * dk_stride + of * dim + i] = store<T>(sum_k[p] * scale);
            dv[key * dv_stride + of * dim + i] = store<T>(sum_v[p]);
        }
    }
}
