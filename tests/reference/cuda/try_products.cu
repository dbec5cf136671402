// The products of products_hopper.cu against sums in f64 by a plain kernel, and then timed beside cuBLASLt's products with nothing after
// them, in turns, since a card that is at its limit of power slows down.
//
//     nvcc -O2 -std=c++17 -gencode=arch=compute_90a,code=sm_90a -I ../../../models/src/ops/cuda try_products.cu -lcublasLt -o try_products
//     ./try_products [--quick]
//
// --quick leaves out the times. Inputs are fresh in every build alone: they are hashes of their places.
#include <cublasLt.h>
#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "prelude.cuh"
#include "wgmma.cuh"
#include "products_hopper.cu"

#define CHECK(call)                                                                                  \
    do {                                                                                             \
        auto code = (call);                                                                          \
        if ((int)code != 0) {                                                                        \
            std::printf("%s:%d: %s answered %d\n", __FILE__, __LINE__, #call, (int)code);            \
            std::exit(1);                                                                            \
        }                                                                                            \
    } while (0)

using Shape = int[3]; // rows, columns, summed
constexpr int SHARED_BYTES = STAGES * STAGE_BYTES + 2 * HALF_BYTES + STAGES * 16 + 32;

// Sums of four uniform numbers: nearly normal, with this deviation.
__global__ void fill(bf16* x, size_t count, u64 seed, float deviation) {
    size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    if (i >= count) return;
    u64 h = i * 0x9E3779B97F4A7C15ull + seed * 7919;
    h ^= h >> 31;
    h *= 0xbf58476d1ce4e5b9ull;
    h ^= h >> 29;
    h *= 0x94d049bb133111ebull;
    h ^= h >> 32;
    float sum = 0.0f;
    for (int part = 0; part < 4; part++) sum += (float)(h >> 16 * part & 0xffff) / 65536.0f;
    x[i] = to_bf16((sum - 2.0f) * 1.7320508f * deviation);
}

__device__ double bend_exactly(double x, bool silu, double& slope) {
    if (silu) {
        double share = 1 / (1 + exp(-x));
        slope = share * (1 + x * (1 - share));
        return x * share;
    }
    double k = sqrt(2 / M_PI), t = tanh(k * (x + 0.044715 * x * x * x));
    slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * k * (1 + 3 * 0.044715 * x * x);
    return 0.5 * x * (1 + t);
}

struct Inputs {
    const bf16 *a, *b, *bias, *with, *also;
    const float* added;
    int a_stride, b_stride, stride;
};

// What a kernel of `kind` should give, a thread a value.
__global__ void exactly(int kind, bool plain, Inputs of, double* out, double* second, double* third, int n, int k) {
    int column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (column >= n) return;
    double sum = 0;
    for (int i = 0; i < k; i++) {
        size_t at = plain ? (size_t)i * of.b_stride + column : (size_t)column * of.b_stride + i;
        sum += (double)to_f32(of.a[(size_t)row * of.a_stride + i]) * to_f32(of.b[at]);
    }
    size_t place = (size_t)row * of.stride + column, to = (size_t)row * n + column;
    double with = to_f32(of.with[place]), also = to_f32(of.also[place]), slope = 0;
    if (kind == BIAS || kind == GELU || kind == GELU_KEPT) sum += to_f32(of.bias[column]);
    if (kind == ADD && of.added) sum += of.added[column];
    bool gate = kind >= GATE_GELU, silu = kind == GATE_SILU || kind == GATE_SILU_KEPT;
    double bent = gate || kind == GELU || kind == GELU_KEPT ? bend_exactly(sum, silu, slope) : 0;
    out[to] = kind == BIAS ? sum : kind == ADD ? sum + with : kind == TIMES || kind == TIMES_TWO ? sum * with : gate ? bent * with : bent;
    second[to] = kind == TIMES_TWO ? sum * also : gate ? slope * with : slope;
    third[to] = bent;
}

using Encode = decltype(&cuTensorMapEncodeTiled);
Encode encode;

Map map_of(const void* at, int columns, int rows, int stride, u32 wide, u32 high) {
    CUtensorMap map;
    cuuint64_t sizes[2] = {(cuuint64_t)columns, (cuuint64_t)rows}, strides[1] = {(cuuint64_t)stride * 2};
    cuuint32_t box[2] = {wide, high}, steps[2] = {1, 1};
    CHECK(encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void*)at, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                 CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
    Map out;
    std::memcpy(&out, &map, sizeof out);
    return out;
}

using Function = void (*)(Map, Map, bf16*, bf16*, bf16*, const void*, const bf16*, const bf16*, float*, int, int, int, int, int, int, int, int);

struct Kernel {
    const char* name;
    const void* function;
    int kind;
    bool plain;
    bool has_second() const { return kind == GELU_KEPT || kind == TIMES_TWO || kind >= GATE_GELU_KEPT; }
    bool has_third() const { return kind >= GATE_GELU_KEPT; }
};
#define KERNEL(NAME, KIND, PLAIN) Kernel{#NAME, (const void*)product_##NAME, KIND, PLAIN}
const Kernel KERNELS[] = {
    KERNEL(bias, BIAS, false), KERNEL(gelu, GELU, false), KERNEL(gelu_kept, GELU_KEPT, false), KERNEL(add, ADD, false),
    KERNEL(plain_add, ADD, true), KERNEL(times, TIMES, true), KERNEL(times_two, TIMES_TWO, true), KERNEL(gate_gelu, GATE_GELU, false),
    KERNEL(gate_silu, GATE_SILU, false), KERNEL(gate_gelu_kept, GATE_GELU_KEPT, false), KERNEL(gate_silu_kept, GATE_SILU_KEPT, false),
};

struct Buffers {
    bf16 *a, *b, *with, *also, *bias, *out, *second, *third;
    float *added, *sums;
    double* expected[3];
};

void run(const Kernel& kernel, const Buffers& of, const Shape& shape, int a_stride, int b_stride, int stride, bool added, int blocks) {
    auto [m, n, k] = shape;
    Map a = map_of(of.a, k, m, a_stride, 64, 128);
    Map b = kernel.plain ? map_of(of.b, n, k, b_stride, 64, 64) : map_of(of.b, k, n, b_stride, 64, 128);
    const void* bias = kernel.kind == ADD ? (added ? (const void*)of.added : nullptr) : of.bias;
    ((Function)kernel.function)<<<blocks, 384, SHARED_BYTES>>>(
        a, b, of.out, of.second, of.third, bias, of.with, of.also, of.sums, stride, stride, stride, stride, stride, m, n, k);
}

float widened(unsigned short bits) {
    unsigned wide = (unsigned)bits << 16;
    float x;
    std::memcpy(&x, &wide, 4);
    return x;
}

// ‖found − expected‖ / ‖expected‖; infinite where anything beyond the matrix was written.
double error(const bf16* found, const double* expected, int m, int n, int stride) {
    std::vector<unsigned short> own((size_t)(m + 1) * stride);
    std::vector<double> wanted((size_t)m * n);
    CHECK(cudaMemcpy(own.data(), found, own.size() * 2, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(wanted.data(), expected, wanted.size() * 8, cudaMemcpyDeviceToHost));
    double off = 0, all = 0;
    for (int row = 0; row <= m; row++) {
        for (int column = 0; column < stride; column++) {
            unsigned short bits = own[(size_t)row * stride + column];
            if (row == m || column >= n) {
                if (bits != 0xffff) return INFINITY;
                continue;
            }
            double value = wanted[(size_t)row * n + column], difference = widened(bits) - value;
            off += difference * difference;
            all += value * value;
        }
    }
    return std::sqrt(off / all);
}

double error_of_sums(const float* sums, const double* expected, int m, int n) {
    int rows = (m + TILE_ROWS - 1) / TILE_ROWS * WRITERS;
    std::vector<float> own((size_t)rows * n);
    std::vector<double> wanted((size_t)m * n);
    CHECK(cudaMemcpy(own.data(), sums, own.size() * 4, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(wanted.data(), expected, wanted.size() * 8, cudaMemcpyDeviceToHost));
    double off = 0, all = 0;
    for (int column = 0; column < n; column++) {
        double found = 0, value = 0;
        for (int row = 0; row < rows; row++) found += own[(size_t)row * n + column];
        for (int row = 0; row < m; row++) value += wanted[(size_t)row * n + column];
        off += (found - value) * (found - value);
        all += value * value;
    }
    return std::sqrt(off / all);
}

int compare(const Buffers& of, size_t most, int blocks) {
    const Shape shapes[] = {{1, 8, 8}, {129, 16, 24}, {100, 264, 72}, {256, 256, 64}, {777, 1032, 1096}, {1000, 520, 200}, {2046, 3072, 520}};
    int bad = 0;
    for (const Kernel& kernel : KERNELS) {
        for (const Shape& shape : shapes) {
            auto [m, n, k] = shape;
            int a_stride = k + 8, b_stride = (kernel.plain ? n : k) + 16, stride = n + 8;
            bool added = m % 2 == 0;
            for (bf16* out : {of.out, of.second, of.third}) CHECK(cudaMemset(out, 0xff, most * 2));
            CHECK(cudaMemset(of.sums, 0xff, most));
            run(kernel, of, shape, a_stride, b_stride, stride, added, blocks);
            CHECK(cudaDeviceSynchronize());
            Inputs inputs = {of.a, of.b, of.bias, of.with, of.also, added ? of.added : nullptr, a_stride, b_stride, stride};
            exactly<<<dim3((n + 127) / 128, m), 128>>>(kernel.kind, kernel.plain, inputs, of.expected[0], of.expected[1], of.expected[2], n, k);
            CHECK(cudaDeviceSynchronize());
            double errors[4] = {error(of.out, of.expected[0], m, n, stride), 0, 0, 0};
            if (kernel.has_second()) errors[1] = error(of.second, of.expected[1], m, n, stride);
            if (kernel.has_third()) errors[2] = error(of.third, of.expected[2], m, n, stride);
            if (kernel.kind == TIMES) errors[3] = error_of_sums(of.sums, of.expected[0], m, n);
            bool holds = *std::max_element(errors, errors + 4) < 5e-3;
            bad += !holds;
            std::printf("%s %-16s %5d × %5d × %5d  %.2e %.2e %.2e %.2e\n", holds ? "ok " : "BAD", kernel.name, m, k, n, errors[0], errors[1],
                        errors[2], errors[3]);
        }
    }
    return bad;
}

// cuBLASLt's first choice for a product with nothing after it.
struct Plain {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t right, left, out;
    cublasLtMatmulHeuristicResult_t choice;
    void* workspace;
    static constexpr size_t ROOM = 64 << 20;
    Plain(cublasLtHandle_t handle, void* workspace, const Shape& shape, bool plain) : handle(handle), workspace(workspace) {
        auto [m, n, k] = shape;
        cublasOperation_t first = plain ? CUBLAS_OP_N : CUBLAS_OP_T;
        size_t room = ROOM;
        int found;
        cublasLtMatmulPreference_t wish;
        CHECK(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
        CHECK(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first));
        CHECK(cublasLtMatrixLayoutCreate(&right, CUDA_R_16BF, plain ? n : k, plain ? k : n, plain ? n : k));
        CHECK(cublasLtMatrixLayoutCreate(&left, CUDA_R_16BF, k, m, k));
        CHECK(cublasLtMatrixLayoutCreate(&out, CUDA_R_16BF, n, m, n));
        CHECK(cublasLtMatmulPreferenceCreate(&wish));
        CHECK(cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room));
        CHECK(cublasLtMatmulAlgoGetHeuristic(handle, product, right, left, out, out, wish, 1, &choice, &found));
    }
    void run(const Buffers& of) const {
        float one = 1, zero = 0;
        CHECK(cublasLtMatmul(handle, product, &one, of.b, right, of.a, left, &zero, of.out, out, of.out, out, &choice.algo, workspace, ROOM, 0));
    }
};

void time_all(const Buffers& of, int blocks) {
    const struct {
        int kernel;
        Shape shape;
    } works[] = {
        {0, {32768, 3072, 1024}}, {2, {32768, 4096, 1024}}, {3, {32768, 1024, 1024}}, {3, {32768, 1024, 4096}}, {5, {32768, 4096, 1024}},
        {4, {32768, 1024, 4096}}, {4, {32768, 1024, 3072}}, {0, {16384, 3072, 1024}}, {1, {16384, 4096, 1024}}, {3, {16384, 1024, 1024}},
        {3, {16384, 1024, 4096}}, {2, {10961, 4096, 1024}}, {5, {10961, 4096, 1024}}, {7, {2046, 16384, 3072}}, {9, {2046, 16384, 3072}},
        {6, {2046, 16384, 3072}}, {7, {16384, 16384, 2048}},
    };
    cublasLtHandle_t handle;
    void* workspace;
    CHECK(cublasLtCreate(&handle));
    CHECK(cudaMalloc(&workspace, Plain::ROOM));
    cudaEvent_t events[3];
    for (cudaEvent_t& event : events) CHECK(cudaEventCreate(&event));
    for (int round = 0; round < 3; round++) {
        for (const auto& work : works) {
            const Kernel& kernel = KERNELS[work.kernel];
            auto [m, n, k] = work.shape;
            Plain plain(handle, workspace, work.shape, kernel.plain);
            double operations = 2.0 * m * n * k;
            int times = std::max(4, (int)(12e-3 / (operations / 6e14)));
            float own = 0, other = 0;
            for (int turn = 0; turn < 3; turn++) {
                CHECK(cudaEventRecord(events[0]));
                for (int i = 0; i < times; i++) run(kernel, of, work.shape, k, kernel.plain ? n : k, n, true, blocks);
                CHECK(cudaEventRecord(events[1]));
                for (int i = 0; i < times; i++) plain.run(of);
                CHECK(cudaEventRecord(events[2]));
                CHECK(cudaEventSynchronize(events[2]));
                float first, then;
                CHECK(cudaEventElapsedTime(&first, events[0], events[1]));
                CHECK(cudaEventElapsedTime(&then, events[1], events[2]));
                if (turn == 0) continue; // warms up
                own += first / times / 2;
                other += then / times / 2;
            }
            std::printf("%-16s %6d × %5d × %5d  %.4f ms %4.0f TFLOP/s, cuBLASLt with nothing after it %.4f ms %4.0f\n", kernel.name, m, k, n, own,
                        operations / own / 1e9, other, operations / other / 1e9);
        }
    }
}

int main(int count, char** arguments) {
    cudaDriverEntryPointQueryResult found;
    CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", (void**)&encode, 12000, cudaEnableDefault, &found));
    for (const Kernel& kernel : KERNELS) CHECK(cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_BYTES));
    cudaDeviceProp card;
    CHECK(cudaGetDeviceProperties(&card, 0));
    std::printf("%s, %d multiprocessors\n", card.name, card.multiProcessorCount);
    const size_t most = (size_t)16384 * 16384 + 16384, small = (size_t)2048 * 3080;
    Buffers of;
    bf16** matrices[] = {&of.a, &of.b, &of.with, &of.also, &of.out, &of.second, &of.third};
    for (int i = 0; i < 7; i++) {
        CHECK(cudaMalloc(matrices[i], most * 2));
        if (i < 4) fill<<<(most + 255) / 256, 256>>>(*matrices[i], most, i, i == 1 ? 0.03f : 1.0f);
    }
    CHECK(cudaMalloc(&of.bias, 1 << 16));
    CHECK(cudaMalloc(&of.added, 1 << 16));
    CHECK(cudaMalloc(&of.sums, most));
    for (double*& expected : of.expected) CHECK(cudaMalloc(&expected, small * 8));
    fill<<<128, 256>>>(of.bias, 32768, 5, 0.5f);
    std::vector<float> added(16384);
    for (size_t i = 0; i < added.size(); i++) added[i] = 0.5f * std::sin((float)i);
    CHECK(cudaMemcpy(of.added, added.data(), added.size() * 4, cudaMemcpyHostToDevice));
    int blocks = card.multiProcessorCount / 2 * 2, bad = compare(of, small + 4096, blocks);
    std::printf(bad ? "%d are wrong\n" : "all right\n", bad);
    if (bad == 0 && (count < 2 || std::string(arguments[1]) != "--quick")) time_all(of, blocks);
    return bad != 0;
}
