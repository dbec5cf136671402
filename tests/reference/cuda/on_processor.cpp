// What CUDA C++ needs to run on a processor: the threads of a block are fibers that take turns, each until it waits for others. The
// kernels stand in the middle; after them they are compared with sums in f64.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <type_traits>
#include <ucontext.h>
#include <vector>

struct Index {
    unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
static unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
static unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
static float __int_as_float(int x) { return std::bit_cast<float>(x); }
static unsigned short rounded(float x) {
    const unsigned bits = std::bit_cast<unsigned>(x);
    return std::isnan(x) ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
static float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
static float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
static float __fmul_rn(float x, float y) { return x * y; }
static float __fadd_rn(float x, float y) { return x + y; }
static float __fdiv_rn(float x, float y) { return x / y; }
static float __fsqrt_rn(float x) { return std::sqrt(x); }
#define __expf expf
using std::max;
using std::min;

// A block's threads.
struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(256 << 10);
    bool done;
    unsigned exchanges, waits;
    float given[2];
};
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static std::function<void()> kernel;
static unsigned own() { return threadIdx.x; }
static void yield() {
    const unsigned self = own();
    swapcontext(&fibers[self].context, &scheduler);
}
static void __syncthreads() {
    const unsigned wanted = ++fibers[own()].waits;
    const auto behind = [&](const Fiber& other) { return !other.done && other.waits < wanted; };
    while (std::any_of(fibers.begin(), fibers.end(), behind)) yield();
}
static float __shfl_xor_sync(unsigned, float x, int step) {
    const unsigned self = own(), first = self / 32 * 32, turn = fibers[self].exchanges++;
    fibers[self].given[turn % 2] = x;
    for (unsigned other = first; other < first + 32; ++other) {
        while (fibers[other].exchanges <= turn) {
            if (fibers[other].done) std::puts("a thread of a warp has ended before it gave its value"), std::exit(1);
            yield();
        }
    }
    return fibers[self ^ step].given[turn % 2];
}
static void run(unsigned thread) {
    kernel();
    fibers[thread].done = true;
}
static void launch(Index grid, unsigned threads, std::function<void()> of) {
    kernel = of;
    gridDim = grid;
    blockDim = {threads, 1, 1};
    fibers.resize(threads);
    for (unsigned y = 0; y < grid.y; ++y) {
        for (unsigned x = 0; x < grid.x; ++x) {
            blockIdx = {x, y, 0};
            for (unsigned t = 0; t < threads; ++t) {
                Fiber& fiber = fibers[t];
                fiber.done = false;
                fiber.exchanges = fiber.waits = 0;
                getcontext(&fiber.context);
                fiber.context.uc_stack = {.ss_sp = fiber.stack.data(), .ss_flags = 0, .ss_size = fiber.stack.size()};
                fiber.context.uc_link = &scheduler;
                makecontext(&fiber.context, (void (*)())run, 1, t);
            }
            for (bool going = true; going;) {
                going = false;
                for (unsigned t = 0; t < threads; ++t) {
                    if (fibers[t].done) continue;
                    threadIdx = {t, 0, 0};
                    swapcontext(&scheduler, &fibers[t].context);
                    going = true;
                }
            }
        }
    }
}

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__ alignas
// THE KERNELS

static std::mt19937_64 draws(20261124);
static double normal() { return std::normal_distribution<double>()(draws); }
typedef std::vector<double> Wide;
static int failed = 0;

// Numbers as a kernel has them, and as the reference has them. What is not written to is not a number.
template <typename S> struct Numbers {
    std::vector<S> values;
    explicit Numbers(size_t count) : values(count, store<S>(NAN)) {}
    static Numbers drawn(size_t count, double deviation = 1.0) {
        Numbers numbers(count);
        for (S& value : numbers.values) value = store<S>(deviation * normal());
        return numbers;
    }
    S* at(size_t place = 0) { return values.data() + place; }
    Wide wide() const {
        Wide wide;
        for (S value : values) wide.push_back(load(value));
        return wide;
    }
};

static void compare(const std::string& name, const Wide& found, const Wide& expected, double bound) {
    double most = 1e-30, error = found.size() == expected.size() ? 0.0 : INFINITY;
    for (double x : expected) most = std::max(most, std::fabs(x));
    for (size_t i = 0; i < std::min(found.size(), expected.size()); ++i) {
        const double one = std::fabs(found[i] - expected[i]) / most;
        error = std::isnan(one) ? INFINITY : std::max(error, one);
    }
    const bool holds = error <= bound;
    failed += !holds;
    std::printf("%s %-70s %.1e\n", holds ? "ok    " : "FAILED", name.c_str(), error);
}
static const double EXACT = 2e-6, ROUNDED = sizeof(T) == 2 ? 8e-3 : EXACT;

// Adam of parts of parameters: their rows, columns, the copy's stride, the part and its steps.
struct Shape {
    size_t rows, columns, stride, start, count;
    int steps, kind;
};
static void optimizer() {
    const int chunk = 64;
    const Shape shapes[] = {{1, 1, 1, 0, 1, 1, 2},         {1, 203, 203, 0, 203, 7, 1},   {9, 64, 64, 0, 576, 7, 2},
                            {5, 24, 40, 0, 120, 2, 2},     {30, 13, 16, 7, 301, 3, 2},    {4, 64, 64, 128, 128, 9, 0},
                            {1, 130, 130, 0, 130, 4, 2},   {6, 32, 36, 4, 100, 1, 1},     {3, 32, 34, 0, 96, 5, 2}};
    const float factor = 0.5f, beta1 = 0.9f, beta2 = 0.99f, eps = 1e-6f, rate = 3e-2f;
    for (const bool decoupled : {false, true}) {
        const float shrink = decoupled ? 0.98f : 1.0f, decay = decoupled ? 0.0f : 0.05f;
        struct Part {
            Numbers<float> values, gradient, first, second, wide;
            Numbers<bf16> narrow;
            size_t copied;
        };
        std::vector<Part> parts;
        std::vector<Wide> before;
        std::vector<adam::Move> moves;
        unsigned blocks = 0;
        for (const Shape& s : shapes) {
            parts.push_back({Numbers<float>::drawn(s.rows * s.columns), Numbers<float>::drawn(s.count), Numbers<float>::drawn(s.count, 0.3),
                             Numbers<float>::drawn(s.count, 0.3), Numbers<float>(s.rows * s.stride), Numbers<bf16>(s.rows * s.stride)});
            for (float& value : parts.back().second.values) value = std::fabs(value);
            for (float& value : parts.back().wide.values) value = 0;
            for (bf16& value : parts.back().narrow.values) value.bits = 0;
        }
        for (size_t i = 0; i < parts.size(); ++i) {
            const Shape& s = shapes[i];
            Part& p = parts[i];
            const bool gaps = s.rows > 1 && s.stride != s.columns;
            void* copy = s.kind == 1 ? (void*)p.wide.at() : s.kind == 2 ? (void*)p.narrow.at() : nullptr;
            moves.push_back({p.values.at(s.start), p.first.at(), p.second.at(), p.gradient.at(), copy, s.start, s.count,
                             gaps ? (u32)s.columns : 0, gaps ? (u32)s.stride : 0, blocks, (u32)s.kind, rate / s.steps, 0.1f * s.steps, 0, 0, 0, 0});
            blocks += (s.count + chunk - 1) / chunk;
        }
        std::vector<std::array<Wide, 5>> expected;
        for (size_t i = 0; i < parts.size(); ++i) {
            const Shape& s = shapes[i];
            Part& p = parts[i];
            std::array<Wide, 5> e = {p.values.wide(), p.first.wide(), p.second.wide(), p.wide.wide(), p.narrow.wide()};
            const Wide gradient = p.gradient.wide();
            for (size_t k = 0; k < s.count; ++k) {
                const size_t at = s.start + k, place = at / s.columns * s.stride + at % s.columns;
                const double x = e[0][at], g = gradient[k] * factor + decay * x;
                e[1][k] = e[1][k] * beta1 + g * (1.0 - beta1);
                e[2][k] = e[2][k] * beta2 + g * g * (1.0 - beta2);
                e[0][at] = x * shrink - e[1][k] / (std::sqrt(e[2][k]) / (0.1f * s.steps) + eps) * (rate / s.steps);
                if (s.kind == 1) e[3][place] = e[0][at];
                if (s.kind == 2) e[4][place] = e[0][at];
            }
            expected.push_back(e);
        }
        launch({blocks, 1, 1}, 32, [&] {
            adam::adam(moves.data(), moves.size(), chunk, factor, beta1, beta2, eps, shrink, decay);
        });
        for (size_t i = 0; i < parts.size(); ++i) {
            const std::string name = "Adam, part " + std::to_string(i) + (decoupled ? ", decoupled" : "");
            const std::array<Wide, 5> found = {parts[i].values.wide(), parts[i].first.wide(), parts[i].second.wide(),
                                               parts[i].wide.wide(), parts[i].narrow.wide()};
            const char* whats[] = {": values", ": first moments", ": second moments", ": copy in f32", ": copy in bf16"};
            for (int k = 0; k < 5; ++k) compare(name + whats[k], found[k], expected[i][k], k == 4 ? 4e-3 : EXACT);
        }
    }
}

// Adam of a parameter whose values are bf16 numbers in its copy alone: each becomes one of the neighbours of what the step makes of it, and
// on average that itself; in parts that begin anywhere it becomes the same.
template <typename S> static void bf16_numbers(u32 kind, size_t rows, size_t columns, size_t stride) {
    const int chunk = 64;
    const float beta1 = 0.9f, beta2 = 0.99f, eps = 1e-6f, rate = 1e-3f, root2 = 0.3f, shrink = 0.999f;
    const size_t count = rows * columns;
    Numbers<S> start = Numbers<S>::drawn(rows * stride);
    for (S& value : start.values) value = store<S>(load(store<bf16>(load(value))));
    Numbers<float> gradient = Numbers<float>::drawn(count), first = Numbers<float>::drawn(count, 0.3), second = Numbers<float>::drawn(count, 0.3);
    for (float& value : second.values) value = std::fabs(value);
    std::vector<Wide> found;
    for (const std::vector<size_t>& cuts : {std::vector<size_t>{0, count}, std::vector<size_t>{0, 5, 8, count / 2 + 1, count}}) {
        Numbers<S> copy = start;
        Numbers<float> m = first, v = second;
        Numbers<bf16> besides(count);
        std::vector<adam::Move> moves;
        unsigned blocks = 0;
        for (size_t i = 0; i + 1 < cuts.size(); ++i) {
            const size_t at = cuts[i], length = cuts[i + 1] - at;
            const bool gaps = stride != columns;
            moves.push_back({(float*)besides.at(at), m.at(at), v.at(at), gradient.at(at), copy.at(), at, length, gaps ? (u32)columns : 0,
                             gaps ? (u32)stride : 0, blocks, kind, rate, root2, 77, 88, 4, 9});
            blocks += (length + chunk - 1) / chunk;
        }
        launch({blocks, 1, 1}, 32, [&] { adam::adam(moves.data(), moves.size(), chunk, 1.0f, beta1, beta2, eps, shrink, 0.0f); });
        found.push_back(copy.wide());
        found.push_back(besides.wide());
    }
    const std::string name = "Adam, bf16 numbers, " + std::to_string(rows) + " × " + std::to_string(columns) + ", kind " + std::to_string(kind);
    compare(name + ": in parts", found[2], found[0], 0.0);
    compare(name + ": in parts, side by side", found[3], found[1], 0.0);
    Wide own = found[1], still = start.wide(), bits, off;
    const Wide x = start.wide(), g = gradient.wide(), m = first.wide(), v = second.wide();
    double mean = 0.0;
    for (size_t i = 0; i < count; ++i) {
        const size_t place = i / columns * stride + i % columns;
        const double m1 = m[i] * beta1 + g[i] * (1.0 - beta1), v1 = v[i] * beta2 + g[i] * g[i] * (1.0 - beta2);
        const double y = x[place] * shrink - m1 / (std::sqrt(v1) / root2 + eps) * rate;
        const double unit = std::ldexp(1.0, std::ilogb(y) - 7), apart = (found[0][place] - y) / unit;
        own[i] = still[place] = found[0][place];
        bits.push_back(load(store<bf16>((float)found[0][place])));
        off.push_back(std::fabs(apart) < 1.001 ? 0.0 : apart);
        mean += apart * (y < 0 ? -1.0 : 1.0) / count;
    }
    compare(name + ": side by side", found[1], own, 0.0);
    compare(name + ": between rows", found[0], still, 0.0);
    compare(name + ": are bf16 numbers", own, bits, 0.0);
    compare(name + ": are neighbours", off, Wide(count), 0.0);
    // Five standard deviations of the mean of what is half a unit off at most, as a root of a mean square.
    compare(name + ": mean", {1.0 + mean / 2.5 * std::sqrt(count)}, {1.0}, 1.0);
}

static void sums(int count, int width, int pitch, int planes, int fresh) {
    const int plane = pitch == width ? count * width : width;
    Numbers<float> parts = Numbers<float>::drawn(pitch == width ? (size_t)planes * count * width : (size_t)count * pitch);
    const Wide all = parts.wide();
    Numbers<float> outs[3] = {Numbers<float>::drawn(width), Numbers<float>::drawn(width), Numbers<float>::drawn(width)};
    Wide expected[3];
    for (int p = 0; p < 3; ++p) {
        expected[p] = outs[p].wide();
        for (int i = 0; p < planes && i < width; ++i) {
            if (fresh >> p & 1) outs[p].values[i] = NAN, expected[p][i] = 0.0;
            for (int r = 0; r < count; ++r) expected[p][i] += all[(size_t)p * plane + (size_t)r * pitch + i];
        }
    }
    launch({(unsigned)(width + 31) / 32, (unsigned)planes, 1}, 512, [&] {
        encoder::add_parts(outs[0].at(), planes > 1 ? outs[1].at() : nullptr, outs[2].at(), parts.at(), count, width, pitch, plane, fresh);
    });
    for (int p = 0; p < 3; ++p) {
        const std::string name = "sums of " + std::to_string(count) + " parts of " + std::to_string(width) + ", " + std::to_string(p);
        compare(name, outs[p].wide(), expected[p], EXACT);
    }
}

static void columns(int rows, int width, int blocks, bool eight) {
    Numbers<T> x = Numbers<T>::drawn(rows * width);
    Numbers<float> parts((size_t)blocks * width);
    const unsigned across = (width / (eight ? 8 : 1) + 63) / 64;
    launch({(unsigned)blocks, across, 1}, 64, [&] {
        (eight ? encoder::column_parts_8 : encoder::column_parts)(parts.at(), x.at(), rows, width);
    });
    Wide expected(width), found(width);
    const Wide all = x.wide(), each = parts.wide();
    for (size_t i = 0; i < all.size(); ++i) expected[i % width] += all[i];
    for (size_t i = 0; i < each.size(); ++i) found[i % width] += each[i];
    compare("sums of columns of " + std::to_string(rows) + " × " + std::to_string(width), found, expected, EXACT);
}

static void norms(int rows, int width, int blocks, bool with) {
    const double eps = 1e-6;
    typedef Numbers<T> Ts;
    Ts x = Ts::drawn(rows * width), delta = Ts::drawn(rows * width), slope = Ts::drawn(rows * width), more = Ts::drawn(rows * width);
    Ts sum(rows * width), out(rows * width), d_sum(rows * width);
    Numbers<float> added = Numbers<float>::drawn(width), weight = Numbers<float>::drawn(width), bias = Numbers<float>::drawn(width);
    // A mean that is not small.
    for (T& value : x.values) value = store<T>(load(value) + 1.5f);
    launch({(unsigned)(rows + 3) / 4, 1, 1}, 128, [&] {
        encoder::layer_norm_8(out.at(), sum.at(), x.at(), with ? delta.at() : nullptr, with ? added.at() : nullptr, weight.at(), bias.at(), rows,
                              width, eps);
    });
    const std::string name = "layer norm of " + std::to_string(rows) + " × " + std::to_string(width) + (with ? ", all" : ", alone");
    const Wide one = x.wide(), other = delta.wide(), row = added.wide(), w = weight.wide(), b = bias.wide(), dy = slope.wide(), dz = more.wide();
    Wide total, normed, inverse(rows), mean(rows);
    for (int i = 0; i < rows * width; ++i) total.push_back(one[i] + (with ? other[i] + row[i % width] : 0.0));
    compare(name + ": what is normed", sum.wide(), total, ROUNDED);
    total = sum.wide();
    for (int r = 0; r < rows; ++r) {
        for (int i = 0; i < width; ++i) mean[r] += total[r * width + i] / width;
        double squares = 0.0;
        for (int i = 0; i < width; ++i) squares += std::pow(total[r * width + i] - mean[r], 2) / width;
        inverse[r] = 1.0 / std::sqrt(squares + eps);
        for (int i = 0; i < width; ++i) normed.push_back((total[r * width + i] - mean[r]) * inverse[r] * w[i] + b[i]);
    }
    compare(name, out.wide(), normed, ROUNDED);
    const int threads = 32 * ((width + 255) / 256);
    Numbers<float> parts((size_t)3 * blocks * width);
    launch({(unsigned)blocks, 1, 1}, threads, [&] {
        encoder::layer_norm_backward_8(d_sum.at(), parts.at(), slope.at(), with ? more.at() : nullptr, sum.at(), weight.at(), rows, width, eps);
    });
    Wide expected, gradients(3 * width), found(3 * width);
    for (int r = 0; r < rows; ++r) {
        const auto d = [&](int i) { return dy[r * width + i] + (with ? dz[r * width + i] : 0.0); };
        const auto v = [&](int i) { return (total[r * width + i] - mean[r]) * inverse[r]; };
        double plain = 0.0, dots = 0.0;
        for (int i = 0; i < width; ++i) plain += d(i) * w[i] / width, dots += d(i) * w[i] * v(i) / width;
        for (int i = 0; i < width; ++i) {
            expected.push_back(inverse[r] * (d(i) * w[i] - plain - v(i) * dots));
            gradients[i] += d(i) * v(i);
            gradients[width + i] += d(i);
        }
    }
    compare(name + ": gradient", d_sum.wide(), expected, ROUNDED);
    // That of the bias before is of what was rounded.
    const Wide written = d_sum.wide(), each = parts.wide();
    for (int i = 0; i < rows * width; ++i) gradients[2 * width + i % width] += written[i];
    for (int p = 0; p < 3; ++p)
        for (int k = 0; k < blocks; ++k)
            for (int i = 0; i < width; ++i) found[p * width + i] += each[((size_t)p * blocks + k) * width + i];
    compare(name + ": gradients of weight and biases", found, gradients, EXACT);
}

int main() {
    std::printf("T of %zu bytes\n", sizeof(T));
    optimizer();
    bf16_numbers<float>(5, 40, 64, 64);
    bf16_numbers<float>(5, 40, 51, 51);
    bf16_numbers<bf16>(6, 40, 64, 72);
    bf16_numbers<bf16>(6, 40, 51, 64);
    sums(301, 51, 51, 3, 0b100);
    sums(5, 64, 192, 3, 0b010);
    sums(660, 40, 40, 1, 0b001);
    columns(1, 51, 1, false);
    columns(47, 51, 3, false);
    columns(40, 520, 2, true);
    columns(9, 1024, 4, true);
    for (const int width : {1024, 8, 264, 384, 1000}) {
        norms(11, width, 2, true);
        norms(8, width, 3, false);
        norms(1, width, 1, true);
    }
    return failed > 0;
}
