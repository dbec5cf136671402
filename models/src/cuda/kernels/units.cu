// Vectors at length 1. What does not depend on T is compiled once, for f32.

struct __align__(2) f16 {
    unsigned short bits;
};

__device__ __forceinline__ void put(float* to, float x) { *to = x; }
__device__ __forceinline__ void put(f16* to, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to->bits) : "f"(x)); }

// As on the host lengths are found in f64 and values rounded once. One below `least` counts as that; one that is not a number stays one.
template <typename S> __device__ __forceinline__ void to_length_1(S* units, float* lengths, const float* vectors, int width, float least) {
    __shared__ double parts[8];
    const u64 at = (u64)blockIdx.x * width;
    double square = 0.0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) square += (double)vectors[at + i] * vectors[at + i];
    for (int step = 16; step > 0; step >>= 1) square += __shfl_xor_sync(0xffffffffu, square, step);
    if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = square;
    __syncthreads();
    square = 0.0;
    for (int warp = 0; warp < 8; ++warp) square += parts[warp];
    const double length = sqrt(square), divisor = length < least ? least : length;
    for (int i = threadIdx.x; i < width; i += blockDim.x) put(units + at + i, (float)(vectors[at + i] / divisor));
    if (threadIdx.x == 0) lengths[blockIdx.x] = (float)length;
}

// units [rows, width]: vectors at length 1; lengths [rows]: what they had. Grid: rows. Block: 256.
extern "C" __global__ void unit_rows(float* units, float* lengths, const float* vectors, int width, float least) {
    to_length_1(units, lengths, vectors, width, least);
}
extern "C" __global__ void unit_rows_half(f16* units, float* lengths, const float* vectors, int width, float least) {
    to_length_1(units, lengths, vectors, width, least);
}
