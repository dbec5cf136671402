// What CUDA C++ needs to run on a processor (x86-64): the threads of a block are fibers that take turns, each until it waits for
// others; blocks come one after the other. It stands before every module that compile.py makes.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>
struct Index {
    unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static float2 make_float2(float x, float y) { return {x, y}; }
static uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
static unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
static float __int_as_float(int x) { return std::bit_cast<float>(x); }
static int __float_as_int(float x) { return std::bit_cast<int>(x); }
static unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
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
#define __logf logf
template <class A, class B> static std::common_type_t<A, B> min(A a, B b) { return a < b ? a : b; }
template <class A, class B> static std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }
// A block's threads.
struct Fiber {
    void* sp;
    char* stack;
    bool done;
    unsigned exchanges, waits;
    unsigned long long given[2];
};
static std::vector<Fiber> fibers;
static void* scheduler;
static const std::function<void()>* kernel_now;
// Keeps what a call must keep, and goes on where `to` stopped.
extern "C" void switch_to(void** from, void** to);
asm(".text\n.local switch_to\nswitch_to:\n push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n mov "
    "%rsp,(%rdi)\n mov (%rsi),%rsp\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n");
static __attribute__((noinline)) void yield_() {
    const unsigned self = threadIdx.x;
    switch_to(&fibers[self].sp, &scheduler);
    threadIdx.x = self;
}
// The thread's number is read anew on either side of a change: these are never inlined.
static __attribute__((noinline)) void __syncthreads() {
    const unsigned wanted = ++fibers[threadIdx.x].waits;
    for (unsigned t = 0; t < fibers.size();) {
        if (!fibers[t].done && fibers[t].waits < wanted)
            yield_();
        else
            ++t;
    }
}
// What the thread of this warp whose number differs in `step` gives in the same turn.
template <class V> static __attribute__((noinline)) V exchange(V x, int step) {
    const unsigned self = threadIdx.x, first = self / 32 * 32, turn = fibers[self].exchanges++;
    unsigned long long raw = 0;
    memcpy(&raw, &x, sizeof(V));
    fibers[self].given[turn % 2] = raw;
    for (unsigned other = first; other < first + 32 && other < fibers.size();) {
        if (fibers[other].exchanges <= turn) {
            if (fibers[other].done) {
                std::puts("stand-in: a thread of a warp has ended early");
                std::abort();
            }
            yield_();
        } else
            ++other;
    }
    raw = fibers[self ^ step].given[turn % 2];
    memcpy(&x, &raw, sizeof(V));
    return x;
}
template <class V> static V __shfl_xor_sync(unsigned, V x, int step) { return exchange(x, step); }
static unsigned __reduce_add_sync(unsigned, unsigned x) {
    for (int step = 16; step; step >>= 1) x += exchange(x, step);
    return x;
}
static void __syncwarp(unsigned = 0) { exchange(0, 0); }
static unsigned atomicAdd(unsigned* to, unsigned x) {
    const unsigned was = *to;
    *to += x;
    return was;
}
static void entry() {
    (*kernel_now)();
    const unsigned self = threadIdx.x;
    fibers[self].done = true;
    switch_to(&fibers[self].sp, &scheduler);
    std::abort();
}
extern "C" void run_blocks(const std::function<void()>* of, unsigned gx, unsigned gy, unsigned gz, unsigned threads) {
    constexpr size_t STACK = 64 << 10;
    kernel_now = of;
    gridDim = {gx, gy, gz};
    blockDim = {threads, 1, 1};
    const size_t had = fibers.size();
    static std::vector<char*> stacks;
    while (stacks.size() < threads) stacks.push_back((char*)aligned_alloc(64, STACK));
    fibers.resize(threads);
    for (unsigned z = 0; z < gz; ++z)
        for (unsigned y = 0; y < gy; ++y)
            for (unsigned x = 0; x < gx; ++x) {
                blockIdx = {x, y, z};
                for (unsigned t = 0; t < threads; ++t) {
                    Fiber& f = fibers[t];
                    f.stack = stacks[t];
                    f.done = false;
                    f.exchanges = f.waits = 0;
                    void** top = (void**)(f.stack + STACK) - 1;
                    *--top = (void*)entry;
                    f.sp = top - 6;
                }
                for (bool going = true; going;) {
                    going = false;
                    for (unsigned t = 0; t < threads; ++t) {
                        if (fibers[t].done) continue;
                        threadIdx = {t, 0, 0};
                        switch_to(&scheduler, &fibers[t].sp);
                        going = true;
                    }
                }
            }
}
#define __global__
#define __device__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__ alignas
