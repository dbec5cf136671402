// The contrastive loss of profiles and their targets. `units` [2 · pairs, width] are both at length 1, profiles first. What does not depend
// on T is compiled once, for f32.

// Shorter vectors are treated as this long.
#define LEAST_LENGTH 1e-12f

// cosines [pairs, pairs] of profiles and targets; losses [pairs]: cross-entropy of a profile's cosines · inverse, its own target being
// right; slopes [pairs, pairs] of all losses · share / inverse in the cosines. Grid: pairs. Block: 256.
extern "C" __global__ void contrast(float* cosines, float* slopes, float* losses, const float* units, int pairs, int width, float inverse,
                                    float share) {
    const int lane = threadIdx.x & 31;
    const float* own = units + (u64)blockIdx.x * width;
    float* row = cosines + (u64)blockIdx.x * pairs;
    for (int target = threadIdx.x >> 5; target < pairs; target += blockDim.x >> 5) {
        const float* other = units + (u64)(pairs + target) * width;
        float sum = 0.0f;
        for (int i = lane; i < width; i += 32) sum += own[i] * other[i];
        sum = warp_sum(sum);
        if (lane == 0) row[target] = sum;
    }
    __syncthreads();
    float most = __int_as_float(0xff800000);
    for (int i = threadIdx.x; i < pairs; i += blockDim.x) most = fmaxf(most, row[i] * inverse);
    most = block_max(most);
    float total = 0.0f;
    for (int i = threadIdx.x; i < pairs; i += blockDim.x) total += expf(row[i] * inverse - most);
    total = most + logf(block_sum(total));
    for (int i = threadIdx.x; i < pairs; i += blockDim.x) {
        const float wanted = i == blockIdx.x ? 1.0f : 0.0f;
        slopes[(u64)blockIdx.x * pairs + i] = (expf(row[i] * inverse - total) - wanted) * share;
    }
    if (threadIdx.x == 0) losses[blockIdx.x] = total - row[blockIdx.x] * inverse;
}

// out [2 · pairs, width]: from slopes in cosines to slopes in the vectors that `units` were made of. Grid: 2 · pairs. Block: 256.
extern "C" __global__ void contrast_backward(float* out, const float* slopes, const float* units, const float* lengths, int pairs, int width) {
    const int row = blockIdx.x;
    const bool target = row >= pairs;
    const float* others = target ? units : units + (u64)pairs * width;
    const float* weights = target ? slopes + (row - pairs) : slopes + (u64)row * pairs;
    const int step = target ? pairs : 1;
    const float* own = units + (u64)row * width;
    float* to = out + (u64)row * width;
    float along = 0.0f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float sum = 0.0f;
#pragma unroll 8
        for (int other = 0; other < pairs; ++other) sum += weights[(u64)other * step] * others[(u64)other * width + i];
        to[i] = sum;
        along += sum * own[i];
    }
    along = block_sum(along);
    const float length = lengths[row];
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        // What would only change the length changes nothing.
        to[i] = length < LEAST_LENGTH ? to[i] / LEAST_LENGTH : (to[i] - along * own[i]) / length;
    }
}
