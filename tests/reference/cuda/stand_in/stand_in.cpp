// A stand-in for a GPU on the processor: the driver, NVRTC (by compile.py and a C++ compiler), cuBLASLt and NCCL with one rank, as far as the
// engine calls them. Work is done when it is asked for, or kept where a graph is captured. Buffers are full of what is no number,
// have guards behind them, and copies and products must lie within them. Kernels for tensor cores are not there: this GPU has
// not the shared memory for them. run.py builds it.
#include <unistd.h>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>
#define X extern "C"

// ---- memory

typedef std::function<void()> Work;
static std::vector<Work>* capturing = nullptr;
static void submit(Work work) {
    if (capturing)
        capturing->push_back(work);
    else
        work();
}
static std::map<uintptr_t, size_t> live; // by start
static size_t used = 0, high = 0;
static const size_t ALL = 8ull << 30, GUARD = 256;
static void* take(size_t n) {
    char* p = (char*)aligned_alloc(256, (n + GUARD + 255) / 256 * 256);
    memset(p, 0xff, n);
    memset(p + n, 0xa5, GUARD);
    live[(uintptr_t)p] = n;
    used += n;
    if (used > high) high = used;
    return p;
}
static void check(uintptr_t p, size_t n) {
    for (size_t i = 0; i < GUARD; ++i)
        if (((unsigned char*)p)[n + i] != 0xa5) {
            fprintf(stderr, "stand-in: written past a buffer of %zu bytes\n", n);
            abort();
        }
}
static void give(uintptr_t p) {
    auto it = live.find(p);
    if (it == live.end()) {
        fprintf(stderr, "stand-in: freed twice\n");
        abort();
    }
    check(p, it->second);
    used -= it->second;
    memset((void*)p, 0xee, it->second);
    live.erase(it);
    free((void*)p);
}
static void inside(const void* p, size_t n, const char* what) {
    if (!n) return;
    auto it = live.upper_bound((uintptr_t)p);
    if (it != live.begin()) {
        --it;
        if ((uintptr_t)p + n <= it->first + it->second) return;
    }
    fprintf(stderr, "stand-in: %s of %zu bytes is in no buffer\n", what, n);
    abort();
}
// ---- the driver

X int cuInit(unsigned) { return 0; }
X int cuMemHostAlloc(void** p, size_t n, unsigned) {
    *p = malloc(n);
    return 0;
}
X int cuMemFreeHost(void* p) {
    free(p);
    return 0;
}
X int cuDriverGetVersion(int* v) {
    *v = 13000;
    return 0;
}
X int cuDeviceGet(int* d, int) {
    *d = 0;
    return 0;
}
X int cuDeviceGetCount(int* n) {
    *n = 1;
    return 0;
}
X int cuDeviceGetName(char* s, int n, int) {
    strncpy(s, "a processor", n);
    return 0;
}
X int cuDeviceGetAttribute(int* v, int a, int) {
    *v = a == 75 ? 8 : a == 76 ? 0 : a == 16 ? 3 : a == 97 ? 40000 : a == 115 ? 1 : 0;
    return 0;
}
X int cuDevicePrimaryCtxRetain(void** c, int) {
    *c = (void*)1;
    return 0;
}
X int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
X int cuCtxGetCurrent(void** c) {
    *c = (void*)1;
    return 0;
}
X int cuCtxSetCurrent(void*) { return 0; }
X int cuDeviceGetDefaultMemPool(void** p, int) {
    *p = (void*)2;
    return 0;
}
X int cuMemPoolSetAttribute(void*, int a, void*) {
    if (a == 8) high = used;
    return 0;
}
X int cuMemPoolGetAttribute(void*, int a, void* v) {
    *(uint64_t*)v = a == 8 ? high : used;
    return 0;
}
X int cuMemGetInfo_v2(size_t* f, size_t* t) {
    *f = ALL - used;
    *t = ALL;
    return 0;
}
X int cuStreamCreate(void** s, unsigned) {
    *s = malloc(1);
    return 0;
}
X int cuStreamDestroy_v2(void*) { return 0; }
X int cuStreamSynchronize(void*) {
    for (auto& [p, n] : live) check(p, n);
    return 0;
}
X int cuStreamWaitEvent(void*, void*, unsigned) { return 0; }
X int cuEventCreate(void** e, unsigned) {
    *e = malloc(1);
    return 0;
}
X int cuEventDestroy_v2(void*) { return 0; }
X int cuEventRecord(void*, void*) { return 0; }
X int cuEventQuery(void*) { return 0; }
X int cuEventSynchronize(void*) { return 0; }
X int cuEventElapsedTime_v2(float* ms, void*, void*) {
    *ms = 1;
    return 0;
}
X int cuMemAlloc_v2(uintptr_t* p, size_t n) {
    *p = (uintptr_t)take(n);
    return 0;
}
X int cuMemAllocAsync(uintptr_t* p, size_t n, void*) {
    if (used + n > ALL) return 2;
    *p = (uintptr_t)take(n);
    return 0;
}
X int cuMemFree_v2(uintptr_t p) {
    give(p);
    return 0;
}
X int cuMemFreeAsync(uintptr_t p, void*) {
    give(p);
    return 0;
}
X int cuMemcpyHtoDAsync_v2(uintptr_t d, const void* s, size_t n, void*) {
    inside((void*)d, n, "copy in");
    if (capturing) abort();
    memcpy((void*)d, s, n);
    return 0;
}
X int cuMemcpyDtoHAsync_v2(void* d, uintptr_t s, size_t n, void*) {
    inside((void*)s, n, "copy out");
    submit([=] { memcpy(d, (void*)s, n); });
    return 0;
}
X int cuMemcpyDtoDAsync_v2(uintptr_t d, uintptr_t s, size_t n, void*) {
    inside((void*)d, n, "copy to");
    inside((void*)s, n, "copy from");
    submit([=] { memmove((void*)d, (void*)s, n); });
    return 0;
}
X int cuMemsetD8Async(uintptr_t d, unsigned char v, size_t n, void*) {
    inside((void*)d, n, "set");
    submit([=] { memset((void*)d, v, n); });
    return 0;
}
struct Copy2D {
    size_t sx, sy;
    int st;
    const void* sh;
    uintptr_t sd;
    void* sa;
    size_t sp, dx, dy;
    int dt;
    void* dh;
    uintptr_t dd;
    void* da;
    size_t dp, w, h;
};
X int cuMemcpy2DAsync_v2(const Copy2D* c, void*) {
    Copy2D k = *c;
    submit([=] {
        for (size_t r = 0; r < k.h; ++r) memcpy((void*)(k.dd + r * k.dp), (void*)(k.sd + r * k.sp), k.w);
    });
    return 0;
}
struct Function {
    void* (*bind)(void**);
    void (*run)(const Work*, unsigned, unsigned, unsigned, unsigned);
    std::string name;
};
X int cuModuleLoadData(void** m, const void* image) {
    *m = dlopen((const char*)image, RTLD_NOW | RTLD_LOCAL);
    if (!*m) {
        fprintf(stderr, "stand-in: %s\n", dlerror());
        return 1;
    }
    return 0;
}
X int cuModuleGetFunction(void** f, void* m, const char* name) {
    auto* one = new Function{(void* (*)(void**))dlsym(m, (std::string("bind_") + name).c_str()),
                             (decltype(Function::run))dlsym(m, "run_blocks"), name};
    *f = one;
    return 0;
}
X int cuFuncSetAttribute(void*, int, int) { return 0; }
X int cuLaunchKernel(Function* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned, unsigned, unsigned, void*,
                     void** a, void**) {
    static const bool say = getenv("STAND_IN_TRACE");
    if (say) {
        fprintf(stderr, "stand-in: %s %u %u %u x %u\n", f->name.c_str(), gx, gy, gz, bx);
        fflush(stderr);
    }
    if (!f->bind) {
        static std::map<std::string, int> said;
        if (!said[f->name]++) fprintf(stderr, "stand-in: %s is not there\n", f->name.c_str());
        return 0;
    }
    Work* bound = (Work*)f->bind(a);
    auto run = f->run;
    submit([=] { run(bound, gx, gy, gz, bx); });
    return 0;
}
X int cuStreamBeginCapture_v2(void*, int) {
    capturing = new std::vector<Work>;
    return 0;
}
X int cuStreamEndCapture(void*, void** g) {
    *g = capturing;
    capturing = nullptr;
    return 0;
}
X int cuStreamIsCapturing(void*, int* s) {
    *s = capturing ? 1 : 0;
    return 0;
}
X int cuGraphInstantiateWithFlags(void** e, void* g, unsigned long long) {
    *e = g;
    return 0;
}
X int cuGraphLaunch(std::vector<Work>* e, void*) {
    for (auto& w : *e) w();
    return 0;
}
X int cuGraphUpload(void*, void*) { return 0; }
X int cuGraphDestroy(void*) { return 0; }
X int cuGraphExecDestroy(void*) { return 0; }
X int cuGetErrorName(int, const char** s) {
    *s = "error";
    return 0;
}
X int cuGetErrorString(int, const char** s) {
    *s = "error";
    return 0;
}

// ---- nvrtc

struct Program {
    std::string source, out, log;
};
X int nvrtcVersion(int* a, int* b) {
    *a = 13;
    *b = 99;
    return 0;
}
X int nvrtcCreateProgram(Program** p, const char* s, const char*, int, const char* const*, const char* const*) {
    *p = new Program{s};
    return 0;
}
X int nvrtcCompileProgram(Program* p, int, const char* const*) {
    static int n = 0;
    const std::string base = std::string(getenv("STAND_IN_OUT")) + "/m" + std::to_string(getpid()) + "-" + std::to_string(n++);
    std::ofstream(base + ".cu") << p->source;
    p->out = base + ".so";
    const std::string c = std::string("python3 ") + getenv("STAND_IN_COMPILER") + " " + base + ".cu " + p->out + " 1>&2";
    return system(c.c_str()) ? 6 : 0;
}
X int nvrtcGetCUBINSize(Program* p, size_t* n) {
    *n = p->out.size() + 1;
    return 0;
}
X int nvrtcGetCUBIN(Program* p, char* s) {
    memcpy(s, p->out.c_str(), p->out.size() + 1);
    return 0;
}
X int nvrtcGetProgramLogSize(Program*, size_t* n) {
    *n = 1;
    return 0;
}
X int nvrtcGetProgramLog(Program*, char* s) {
    *s = 0;
    return 0;
}
X int nvrtcDestroyProgram(Program** p) {
    delete *p;
    return 0;
}
X const char* nvrtcGetErrorString(int) { return "error"; }

// ---- cublasLt

struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t ld;
};
struct Desc {
    int ta = 0, tb = 0, epilogue = 1;
    uint64_t bias = 0, aux = 0;
    int64_t auxld = 0;
};
X int cublasLtCreate(void** h) {
    *h = malloc(1);
    return 0;
}
X int cublasLtDestroy(void*) { return 0; }
X int cublasLtMatrixLayoutCreate(Layout** l, int t, uint64_t r, uint64_t c, int64_t ld) {
    *l = new Layout{t, r, c, ld};
    return 0;
}
X int cublasLtMatrixLayoutSetAttribute(Layout*, int, const void*, size_t) { abort(); }
X int cublasLtMatrixLayoutDestroy(Layout* l) {
    delete l;
    return 0;
}
X int cublasLtMatmulDescCreate(Desc** d, int, int) {
    *d = new Desc;
    return 0;
}
X int cublasLtMatmulDescSetAttribute(Desc* d, int a, const void* v, size_t) {
    if (a == 3)
        d->ta = *(int*)v;
    else if (a == 4)
        d->tb = *(int*)v;
    else if (a == 7)
        d->epilogue = *(int*)v;
    else if (a == 8)
        d->bias = *(uint64_t*)v;
    else if (a == 11)
        d->aux = *(uint64_t*)v;
    else if (a == 12)
        d->auxld = *(int64_t*)v;
    else
        abort();
    return 0;
}
X int cublasLtMatmulDescDestroy(Desc* d) {
    delete d;
    return 0;
}
X int cublasLtMatmulPreferenceCreate(void** p) {
    *p = malloc(1);
    return 0;
}
X int cublasLtMatmulPreferenceSetAttribute(void*, int, const void*, size_t) { return 0; }
X int cublasLtMatmulPreferenceDestroy(void* p) {
    free(p);
    return 0;
}
X int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int, void* r, int* n) {
    memset(r, 0, 96);
    *n = 1;
    return 0;
}
static float half(uint16_t h) {
    _Float16 x;
    memcpy(&x, &h, 2);
    return x;
}
static float get(uint64_t p, int t, uint64_t i) {
    return t == 0 ? ((float*)p)[i] : t == 14 ? std::bit_cast<float>((uint32_t)((uint16_t*)p)[i] << 16) : half(((uint16_t*)p)[i]);
}
static void set(uint64_t p, int t, uint64_t i, float x) {
    if (t == 0)
        ((float*)p)[i] = x;
    else if (t == 14) {
        uint32_t b = std::bit_cast<uint32_t>(x);
        ((uint16_t*)p)[i] = std::isnan(x) ? 0x7fff : (b + 0x7fff + (b >> 16 & 1)) >> 16;
    } else
        abort();
}
static size_t size(int t) { return t == 0 ? 4 : 2; }
static void within(uint64_t p, Layout l, const char* what) {
    if (l.rows && l.columns) inside((void*)p, ((l.columns - 1) * l.ld + l.rows) * size(l.type), what);
}
X int cublasLtMatmul(void*, Desc* dp, const float* al, uint64_t A, Layout* la, uint64_t B, Layout* lb, const float* be,
                     uint64_t C, Layout*, uint64_t D, Layout* ld, const void*, void*, size_t, void*) {
    const Desc d = *dp;
    const Layout a = *la, b = *lb, o = *ld;
    const float alpha = *al, beta = *be;
    if (getenv("STAND_IN_TRACE"))
        fprintf(stderr, "stand-in: product %zux%zux%zu\n", (size_t)o.columns, (size_t)(d.ta ? a.rows : a.columns),
                (size_t)o.rows);
    within(A, a, "left");
    within(B, b, "right");
    within(D, o, "product");
    submit([=] {
        const uint64_t m = o.rows, n = o.columns, k = d.ta ? a.rows : a.columns;
        std::vector<float> x(m * k), y(n * k), z(k);
        for (uint64_t i = 0; i < m; ++i)
            for (uint64_t q = 0; q < k; ++q) x[i * k + q] = get(A, a.type, d.ta ? i * a.ld + q : q * a.ld + i);
        for (uint64_t j = 0; j < n; ++j)
            for (uint64_t q = 0; q < k; ++q) y[j * k + q] = get(B, b.type, d.tb ? q * b.ld + j : j * b.ld + q);
        for (uint64_t j = 0; j < n; ++j)
            for (uint64_t i = 0; i < m; ++i) {
                float sum = 0;
                const float *p = &x[i * k], *r = &y[j * k];
                for (uint64_t q = 0; q < k; ++q) sum += p[q] * r[q];
                float v = alpha * sum + (beta != 0 ? beta * get(C, o.type, j * o.ld + i) : 0);
                if (d.epilogue != 1) {
                    v += get(d.bias, o.type, i);
                    if (d.epilogue == 164) set(d.aux, o.type, j * d.auxld + i, v);
                    if (d.epilogue != 4) v = 0.5f * v * (1 + std::tanh(0.79788456f * (v + 0.044715f * v * v * v)));
                }
                set(D, o.type, j * o.ld + i, v);
            }
    });
    return 0;
}

// ---- nccl of one rank

struct Id {
    char bytes[128];
};
static size_t wide(int t) { return t == 7 ? 4 : t == 9 || t == 6 ? 2 : (abort(), 0); }
X int ncclGetVersion(int* v) {
    *v = 22800;
    return 0;
}
X int ncclGetUniqueId(Id*) { return 0; }
X int ncclCommInitRank(void** c, int n, Id, int) {
    if (n != 1) abort();
    *c = malloc(1);
    return 0;
}
X int ncclCommInitRankConfig(void** c, int n, Id, int, void*) {
    if (n != 1) abort();
    *c = malloc(1);
    return 0;
}
X int ncclCommGetAsyncError(void*, int* e) {
    *e = 0;
    return 0;
}
X int ncclCommDestroy(void*) { return 0; }
X int ncclCommFinalize(void*) { return 0; }
X int ncclCommAbort(void*) { return 0; }
X const char* ncclGetLastError(void*) { return ""; }
X const char* ncclGetErrorString(int) { return ""; }
X int ncclGroupStart() { return 0; }
X int ncclGroupEnd() { return 0; }
static int moved(const void* f, void* t, size_t n) {
    inside(f, n, "sent");
    inside(t, n, "received");
    memmove(t, f, n);
    return 0;
}
X int ncclAllReduce(const void* f, void* t, size_t n, int d, int, void*, void*) { return moved(f, t, n * wide(d)); }
X int ncclReduceScatter(const void* f, void* t, size_t n, int d, int, void*, void*) { return moved(f, t, n * wide(d)); }
X int ncclAllGather(const void* f, void* t, size_t n, int d, void*, void*) { return moved(f, t, n * wide(d)); }
X int ncclBroadcast(const void* f, void* t, size_t n, int d, int, void*, void*) { return moved(f, t, n * wide(d)); }
