// What training computes beside matrix products and attention: forward and backward, bf16 in and out unless said
// otherwise, all sums in f32 and in a fixed order. Rows are any number; widths are multiples of 8.

// ---- sums over rows

// parts[b, i] = Σ x[r, i] over rows r = b, b + blocks, …: the gradient of a bias, before sum_rows. x bf16 [rows, width];
// parts f32 [blocks, width]. Grid: (ceil(width / 8 / block), blocks); block: any.
extern "C" __global__ void column_parts(float* parts, const bf16* x, int rows, int width) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i >= width) return;
    float sum[8] = {};
    for (int row = blockIdx.y; row < rows; row += gridDim.y) {
        float v[8];
        load8(x + (i64)row * width + i, v);
        #pragma unroll
        for (int j = 0; j < 8; j++) sum[j] += v[j];
    }
    store8(parts + (i64)blockIdx.y * width + i, sum);
}

// out[i] = (add ? out[i] : 0) + Σ parts[r, i] in the order of r. parts f32 [count, width], out f32 [width].
// Grid: ceil(width / block); block: any.
extern "C" __global__ void sum_rows(float* out, const float* parts, int count, int width, int add) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= width) return;
    float sum = 0.0f;
    #pragma unroll 8
    for (int r = 0; r < count; r++) sum += parts[(i64)r * width + i];
    out[i] = add ? out[i] + sum : sum;
}

// ---- norms

// Gradient of RMSNorm, whose forward pass is add_rms_norm of decode.cu. x: what was normalised (the residual), bf16 or
// f32; d_out bf16; weight f32 [width]. d_x, of x's type, is added to where `add`, else written: with `add` it is the gradient
// of the residual, which came past the norm. parts: f32 [blocks, width] for sum_rows, the gradient of the weight; or null.
// width at most 32 · block. Grid: as many blocks as parts has rows, 1 to `rows`; block: 256 (512 beyond 8192).
template <class T>
__device__ __forceinline__ void rms_norm_backward(
    T* d_x, const bf16* d_out, const T* x, const float* weight, float* parts, int rows, int width, float eps, float plus, int add) {
    __shared__ float scratch[32];
    float d_weight[4][8] = {};
    for (int row = blockIdx.x; row < rows; row += gridDim.x) {
        i64 start = (i64)row * width;
        float v[4][8], d[4][8], squares = 0.0f, dots = 0.0f;
        #pragma unroll
        for (int c = 0; c < 4; c++) {
            int i = (c * blockDim.x + threadIdx.x) * 8;
            if (i < width) {
                float w[8];
                load8(x + start + i, v[c]);
                load8(d_out + start + i, d[c]);
                load8(weight + i, w);
                #pragma unroll
                for (int j = 0; j < 8; j++) {
                    squares += v[c][j] * v[c][j];
                    dots += d[c][j] * (w[j] + plus) * v[c][j];
                }
            }
        }
        float factor = rsqrtf(block_sum(squares, scratch) / width + eps);
        float mean = block_sum(dots, scratch) / width * factor * factor * factor;
        #pragma unroll
        for (int c = 0; c < 4; c++) {
            int i = (c * blockDim.x + threadIdx.x) * 8;
            if (i < width) {
                float w[8], out[8];
                load8(weight + i, w);
                if (add) load8((const T*)d_x + start + i, out);
                #pragma unroll
                for (int j = 0; j < 8; j++) {
                    float own = d[c][j] * (w[j] + plus) * factor - v[c][j] * mean;
                    out[j] = add ? out[j] + own : own;
                    d_weight[c][j] += d[c][j] * v[c][j] * factor;
                }
                store8(d_x + start + i, out);
            }
        }
    }
    if (!parts) return;
    #pragma unroll
    for (int c = 0; c < 4; c++) {
        int i = (c * blockDim.x + threadIdx.x) * 8;
        if (i < width) store8(parts + (i64)blockIdx.x * width + i, d_weight[c]);
    }
}

extern "C" __global__ void __launch_bounds__(512) rms_norm_backward_bf16(bf16* d_x, const bf16* d_out, const bf16* x, const float* weight, float* parts, int rows, int width, float eps, float plus, int add) {
    rms_norm_backward(d_x, d_out, x, weight, parts, rows, width, eps, plus, add);
}

extern "C" __global__ void __launch_bounds__(512) rms_norm_backward_f32(float* d_x, const bf16* d_out, const float* x, const float* weight, float* parts, int rows, int width, float eps, float plus, int add) {
    rms_norm_backward(d_x, d_out, x, weight, parts, rows, width, eps, plus, add);
}

// sum = x + delta + delta_bias, rounded; out = LayerNorm(sum) · weight + bias (Ba et al., 2016). x, delta, sum, out bf16
// [rows, width]; delta, delta_bias and sum may be null (sum is what the backward pass needs); delta_bias, weight, bias f32.
// width at most 16 · block. Grid: rows; block: 256 (512 beyond 4096).
extern "C" __global__ void add_layer_norm(
    bf16* out, bf16* sum, const bf16* x, const bf16* delta, const float* delta_bias, const float* weight, const float* bias, int width, float eps) {
    __shared__ float scratch[32];
    i64 start = (i64)blockIdx.x * width;
    float v[2][8], total = 0.0f, squares = 0.0f;
    #pragma unroll
    for (int c = 0; c < 2; c++) {
        int i = (c * blockDim.x + threadIdx.x) * 8;
        if (i < width) {
            load8(x + start + i, v[c]);
            float d[8];
            if (delta) {
                load8(delta + start + i, d);
                #pragma unroll
                for (int j = 0; j < 8; j++) v[c][j] += d[j];
            }
            if (delta_bias) {
                load8(delta_bias + i, d);
                #pragma unroll
                for (int j = 0; j < 8; j++) v[c][j] += d[j];
            }
            if (sum) store8(sum + start + i, v[c]);
            #pragma unroll
            for (int j = 0; j < 8; j++) {
                v[c][j] = to_f32(to_bf16(v[c][j]));
                total += v[c][j];
            }
        }
    }
    float mean = block_sum(total, scratch) / width;
    #pragma unroll
    for (int c = 0; c < 2; c++) {
        int i = (c * blockDim.x + threadIdx.x) * 8;
        if (i < width) {
            #pragma unroll
            for (int j = 0; j < 8; j++) {
                v[c][j] -= mean;
                squares += v[c][j] * v[c][j];
            }
        }
    }
    float factor = rsqrtf(block_sum(squares, scratch) / width + eps);
    #pragma unroll
    for (int c = 0; c < 2; c++) {
        int i = (c * blockDim.x + threadIdx.x) * 8;
        if (i < width) {
            float w[8], b[8];
            load8(weight + i, w);
            load8(bias + i, b);
            #pragma unroll
            for (int j = 0; j < 8; j++) w[j] = v[c][j] * factor * w[j] + b[j];
            store8(out + start + i, w);
        }
    }
}

// Gradient of add_layer_norm: d_x is that of x and of delta. `more`, bf16 [rows, width] or null, is added to d_out first.
// parts, bias_parts: f32 [blocks, width] for sum_rows, the gradients of weight and bias; or both null.
// width at most 16 · block. Grid: as many blocks as parts has rows; block: 256 (512 beyond 4096).
extern "C" __global__ void __launch_bounds__(512) layer_norm_backward(
    bf16* d_x, const bf16* d_out, const bf16* more, const bf16* sum, const float* weight, float* parts, float* bias_parts, int rows, int width, float eps) {
    __shared__ float scratch[32];
    float d_weight[2][8] = {}, d_bias[2][8] = {};
    for (int row = blockIdx.x; row < rows; row += gridDim.x) {
        i64 start = (i64)row * width;
        float v[2][8], d[2][8], total = 0.0f, squares = 0.0f, plain = 0.0f, dots = 0.0f;
        #pragma unroll
        for (int c = 0; c < 2; c++) {
            int i = (c * blockDim.x + threadIdx.x) * 8;
            if (i < width) {
                load8(sum + start + i, v[c]);
                load8(d_out + start + i, d[c]);
                if (more) {
                    float m[8];
                    load8(more + start + i, m);
                    #pragma unroll
                    for (int j = 0; j < 8; j++) d[c][j] += m[j];
                }
                #pragma unroll
                for (int j = 0; j < 8; j++) total += v[c][j];
            }
        }
        float mean = block_sum(total, scratch) / width;
        #pragma unroll
        for (int c = 0; c < 2; c++) {
            int i = (c * blockDim.x + threadIdx.x) * 8;
            if (i < width) {
                float w[8];
                load8(weight + i, w);
                #pragma unroll
                for (int j = 0; j < 8; j++) {
                    v[c][j] -= mean;
                    squares += v[c][j] * v[c][j];
                    plain += d[c][j] * w[j];
                    dots += d[c][j] * w[j] * v[c][j];
                }
            }
        }
        float factor = rsqrtf(block_sum(squares, scratch) / width + eps);
        plain = block_sum(plain, scratch) / width;
        dots = block_sum(dots, scratch) / width * factor * factor;
        #pragma unroll
        for (int c = 0; c < 2; c++) {
            int i = (c * blockDim.x + threadIdx.x) * 8;
            if (i < width) {
                float w[8];
                load8(weight + i, w);
                #pragma unroll
                for (int j = 0; j < 8; j++) {
                    d_weight[c][j] += d[c][j] * v[c][j] * factor;
                    d_bias[c][j] += d[c][j];
                    w[j] = factor * (d[c][j] * w[j] - plain - v[c][j] * dots);
                }
                store8(d_x + start + i, w);
            }
        }
    }
    if (!parts) return;
    #pragma unroll
    for (int c = 0; c < 2; c++) {
        int i = (c * blockDim.x + threadIdx.x) * 8;
        if (i < width) {
            store8(parts + (i64)blockIdx.x * width + i, d_weight[c]);
            store8(bias_parts + (i64)blockIdx.x * width + i, d_bias[c]);
        }
    }
}

// ---- rotary positions, biases, activations

// Rotates the first `heads` heads of every row in place (halves apart; Su et al., 2021), backwards where turn is −1.
// Row r at x + r · stride; cosines, sines f32 [positions, dim / 2]; dim % 16 == 0. Grid: rows; block: any.
extern "C" __global__ void rotate(
    bf16* x, const float* cosines, const float* sines, const int* positions, int stride, int heads, int dim, float turn) {
    i64 row = blockIdx.x;
    int half = dim / 2, pieces = half / 8;
    const float* cosine = cosines + (i64)positions[row] * half;
    const float* sine = sines + (i64)positions[row] * half;
    for (int item = threadIdx.x; item < heads * pieces; item += blockDim.x) {
        int i = (item % pieces) * 8;
        bf16* at = x + row * stride + item / pieces * dim + i;
        float a[8], b[8], c[8], s[8];
        load8(at, a);
        load8(at + half, b);
        load8(cosine + i, c);
        load8(sine + i, s);
        #pragma unroll
        for (int j = 0; j < 8; j++) {
            float first = a[j] * c[j] - b[j] * s[j] * turn;
            b[j] = b[j] * c[j] + a[j] * s[j] * turn;
            a[j] = first;
        }
        store8(at, a);
        store8(at + half, b);
    }
}

// x += bias, in place. x bf16 [rows, width], bias f32. Grid: (ceil(width / 8 / block), rows); block: any.
extern "C" __global__ void add_bias(bf16* x, const float* bias, int width) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i >= width) return;
    float a[8], b[8];
    load8(x + (i64)blockIdx.y * width + i, a);
    load8(bias + i, b);
    #pragma unroll
    for (int j = 0; j < 8; j++) a[j] += b[j];
    store8(x + (i64)blockIdx.y * width + i, a);
}

// Gradient of gated_activation of decode.cu, which is out = activation(gate) · up: d_x and x bf16 [rows, 2 · width], gate before
// up; d_out bf16 [rows, width]. d_x may be x. Where `again` is not null, out is written there once more.
// Grid: (ceil(width / 8 / block), rows); block: any.
extern "C" __global__ void gated_activation_backward(bf16* d_x, bf16* again, const bf16* d_out, const bf16* x, int width, int kind) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i >= width) return;
    i64 row = blockIdx.y, at = row * 2 * width + i;
    float gate[8], up[8], d[8], active[8];
    load8(x + at, gate);
    load8(x + at + width, up);
    load8(d_out + row * width + i, d);
    #pragma unroll
    for (int j = 0; j < 8; j++) {
        active[j] = activate(kind, gate[j]);
        gate[j] = d[j] * up[j] * activate_slope(kind, gate[j]);
        up[j] *= active[j];
        active[j] *= d[j];
    }
    store8(d_x + at, gate);
    store8(d_x + at + width, active);
    if (again) store8(again + row * width + i, up);
}

// out = activation(x + bias); bias f32 or null. Grid: (ceil(width / 8 / block), rows); block: any.
extern "C" __global__ void activation(bf16* out, const bf16* x, const float* bias, int width, int kind) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i >= width) return;
    float v[8], b[8] = {};
    load8(x + (i64)blockIdx.y * width + i, v);
    if (bias) load8(bias + i, b);
    #pragma unroll
    for (int j = 0; j < 8; j++) v[j] = activate(kind, v[j] + b[j]);
    store8(out + (i64)blockIdx.y * width + i, v);
}

// Its gradient, of x and, summed by column_parts and sum_rows, of the bias. d_x may be d_out. Grid and block as above.
extern "C" __global__ void activation_backward(bf16* d_x, const bf16* d_out, const bf16* x, const float* bias, int width, int kind) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i >= width) return;
    float v[8], d[8], b[8] = {};
    load8(x + (i64)blockIdx.y * width + i, v);
    load8(d_out + (i64)blockIdx.y * width + i, d);
    if (bias) load8(bias + i, b);
    #pragma unroll
    for (int j = 0; j < 8; j++) d[j] *= activate_slope(kind, v[j] + b[j]);
    store8(d_x + (i64)blockIdx.y * width + i, d);
}

// ---- embeddings

// out[t] = words[tokens[t]] + places[positions[t]] + kind, as BERT has it; bf16, out [tokens, width]; kind: one row.
// Grid: tokens; block: any.
extern "C" __global__ void embed_text(bf16* out, const bf16* words, const bf16* places, const bf16* kind, const int* tokens, const int* positions, int width) {
    i64 row = blockIdx.x;
    for (int i = threadIdx.x * 8; i < width; i += blockDim.x * 8) {
        float a[8], b[8], c[8];
        load8(words + (i64)tokens[row] * width + i, a);
        load8(places + (i64)positions[row] * width + i, b);
        load8(kind + i, c);
        #pragma unroll
        for (int j = 0; j < 8; j++) a[j] += b[j] + c[j];
        store8(out + row * width + i, a);
    }
}

// The gradient of a table whose rows were gathered: d_table[ids[u]] += scale · Σ d[order[k]], k from starts[u] to starts[u + 1].
// order: the rows of d, bf16 [any, width], sorted by id (rows of one id in order); ids: distinct. d_table f32 [any, width].
// Grid: (ceil(width / 8 / block), ids); block: any.
extern "C" __global__ void scatter_rows(float* d_table, const bf16* d, const int* order, const int* starts, const int* ids, int width, float scale) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i >= width) return;
    float sum[8] = {}, x[8];
    for (int k = starts[blockIdx.y]; k < starts[blockIdx.y + 1]; k++) {
        load8(d + (i64)order[k] * width + i, x);
        #pragma unroll
        for (int j = 0; j < 8; j++) sum[j] += x[j];
    }
    float* to = d_table + (i64)ids[blockIdx.y] * width + i;
    load8((const float*)to, x);
    #pragma unroll
    for (int j = 0; j < 8; j++) x[j] += scale * sum[j];
    store8(to, x);
}

// out[rows[k]] (+)= x[k]: the gradient of gather_bf16 where no row was taken twice. bf16; out [any, width], x [count, width].
// Grid: (ceil(width / 8 / block), count); block: any.
extern "C" __global__ void put_rows(bf16* out, const bf16* x, const int* rows, int width, int add) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i >= width) return;
    float a[8], b[8];
    bf16* to = out + (i64)rows[blockIdx.y] * width + i;
    load8(x + (i64)blockIdx.y * width + i, a);
    if (add) {
        load8((const bf16*)to, b);
        #pragma unroll
        for (int j = 0; j < 8; j++) a[j] += b[j];
    }
    store8(to, a);
}

// ---- token scores over a chunk of logits

// Adds numbers x to largest, Σ e^(x − most), Σ x e^(x − most).
struct Softmax {
    float most, sum, weighted;
};

__device__ __forceinline__ void join(Softmax& a, const Softmax& b) {
    float m = fmaxf(a.most, b.most);
    float left = a.most == -INFINITE ? 0.0f : exp_fast(a.most - m), right = b.most == -INFINITE ? 0.0f : exp_fast(b.most - m);
    a = Softmax{m, a.sum * left + b.sum * right, a.weighted * left + b.weighted * right};
}

// For every row of logits / temperature: the log-probability of its token, its entropy, and ln Σ e^logit for the backward pass.
// logits [rows, vocabulary], row r at logits + r · stride (a multiple of 8); logprobs, entropies (may be null), lse f32 [rows].
// Grid: rows; block: 512.
template <class T>
__device__ __forceinline__ void token_scores(
    float* logprobs, float* entropies, float* lse, const T* logits, const int* tokens, i64 stride, int vocabulary, float inverse) {
    __shared__ Softmax found[16];
    const T* x = logits + blockIdx.x * stride;
    Softmax own = {-INFINITE, 0.0f, 0.0f};
    for (int i = threadIdx.x * 8; i < vocabulary; i += blockDim.x * 8) {
        float v[8], most = -INFINITE;
        if (i + 8 <= vocabulary) {
            load8(x + i, v);
        } else {
            #pragma unroll
            for (int j = 0; j < 8; j++) v[j] = i + j < vocabulary ? to_f32(x[i + j]) : -INFINITE;
        }
        #pragma unroll
        for (int j = 0; j < 8; j++) {
            v[j] *= inverse;
            most = fmaxf(most, v[j]);
        }
        if (most > own.most) {
            float shrink = exp_fast(own.most - most);
            own = Softmax{most, own.sum * shrink, own.weighted * shrink};
        }
        if (own.most == -INFINITE) continue;
        #pragma unroll
        for (int j = 0; j < 8; j++) {
            float e = exp_fast(v[j] - own.most);
            own.sum += e;
            own.weighted += e > 0.0f ? v[j] * e : 0.0f;
        }
    }
    #pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
        join(own, Softmax{__shfl_xor_sync(FULL_MASK, own.most, step), __shfl_xor_sync(FULL_MASK, own.sum, step),
                          __shfl_xor_sync(FULL_MASK, own.weighted, step)});
    }
    if ((threadIdx.x & 31) == 0) found[threadIdx.x >> 5] = own;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int w = 1; w < (int)blockDim.x / 32; w++) join(own, found[w]);
    float total = own.most + logf(own.sum);
    lse[blockIdx.x] = total;
    logprobs[blockIdx.x] = to_f32(x[tokens[blockIdx.x]]) * inverse - total;
    if (entropies) entropies[blockIdx.x] = total - own.weighted / own.sum;
}

extern "C" __global__ void token_scores_bf16(float* logprobs, float* entropies, float* lse, const bf16* logits, const int* tokens, i64 stride, int vocabulary, float inverse) {
    token_scores(logprobs, entropies, lse, logits, tokens, stride, vocabulary, inverse);
}

extern "C" __global__ void token_scores_f32(float* logprobs, float* entropies, float* lse, const float* logits, const int* tokens, i64 stride, int vocabulary, float inverse) {
    token_scores(logprobs, entropies, lse, logits, tokens, stride, vocabulary, inverse);
}

// The gradient of the logits in their place, given that of the log-probabilities, f32 [rows]. inverse: 1 / temperature.
// Grid: (parts, rows), parts so that the grid fills the device; block: 256.
template <class T>
__device__ __forceinline__ void token_scores_backward(
    T* logits, const float* d_logprobs, const float* lse, const int* tokens, i64 stride, int vocabulary, float inverse) {
    T* x = logits + blockIdx.y * stride;
    float d = d_logprobs[blockIdx.y] * inverse, base = lse[blockIdx.y] * LOG2E, factor = inverse * LOG2E;
    int token = tokens[blockIdx.y];
    for (int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8; i < vocabulary; i += gridDim.x * blockDim.x * 8) {
        float v[8];
        if (i + 8 <= vocabulary) {
            load8((const T*)x + i, v);
            #pragma unroll
            for (int j = 0; j < 8; j++) v[j] = d * ((i + j == token ? 1.0f : 0.0f) - exp2_fast(v[j] * factor - base));
            store8(x + i, v);
        } else {
            for (int j = i; j < vocabulary; j++) store(x + j, d * ((j == token ? 1.0f : 0.0f) - exp2_fast(to_f32(x[j]) * factor - base)));
        }
    }
}

extern "C" __global__ void token_scores_backward_bf16(bf16* logits, const float* d_logprobs, const float* lse, const int* tokens, i64 stride, int vocabulary, float inverse) {
    token_scores_backward(logits, d_logprobs, lse, tokens, stride, vocabulary, inverse);
}

extern "C" __global__ void token_scores_backward_f32(float* logits, const float* d_logprobs, const float* lse, const int* tokens, i64 stride, int vocabulary, float inverse) {
    token_scores_backward(logits, d_logprobs, lse, tokens, stride, vocabulary, inverse);
}

// ---- embeddings of texts, and their contrast

#define CLS 0
#define MEAN 1

// One vector a text, of length 1: out f32 [texts, width], norms f32 [texts]. hidden bf16 [tokens, width]; text t is rows
// starts[t]..starts[t + 1], never empty. mode: CLS (its first row) or MEAN. normal: 0 leaves the length as it is.
// Grid: texts; block: 256; dynamic shared memory: 4 · width bytes.
extern "C" __global__ void pool(float* out, float* norms, const bf16* hidden, const int* starts, int width, int mode, int normal) {
    extern __shared__ __align__(16) unsigned char shared[];
    __shared__ float scratch[32];
    float* vector = (float*)shared;
    int first = starts[blockIdx.x], rows = mode == CLS ? 1 : starts[blockIdx.x + 1] - first;
    float squares = 0.0f;
    for (int i = threadIdx.x * 8; i < width; i += blockDim.x * 8) {
        float sum[8] = {}, x[8];
        #pragma unroll 4
        for (int r = 0; r < rows; r++) {
            load8(hidden + (i64)(first + r) * width + i, x);
            #pragma unroll
            for (int j = 0; j < 8; j++) sum[j] += x[j];
        }
        #pragma unroll
        for (int j = 0; j < 8; j++) {
            sum[j] /= rows;
            squares += sum[j] * sum[j];
        }
        store8(vector + i, sum);
    }
    float norm = sqrtf(block_sum(squares, scratch));
    float factor = normal ? 1.0f / fmaxf(norm, 1e-12f) : 1.0f;
    for (int i = threadIdx.x * 8; i < width; i += blockDim.x * 8) {
        float x[8];
        load8((const float*)vector + i, x);
        #pragma unroll
        for (int j = 0; j < 8; j++) x[j] *= factor;
        store8(out + (i64)blockIdx.x * width + i, x);
    }
    if (threadIdx.x == 0) norms[blockIdx.x] = norm;
}

// Its gradient: d_hidden bf16 [tokens, width], every row written. out and norms as pool left them; d_out f32 [texts, width].
// Grid: (texts, any), where blocks of one text share its rows; block: 256.
extern "C" __global__ void pool_backward(
    bf16* d_hidden, const float* d_out, const float* out, const float* norms, const int* starts, int width, int mode, int normal) {
    __shared__ float scratch[32];
    int first = starts[blockIdx.x], rows = starts[blockIdx.x + 1] - first;
    const float* d = d_out + (i64)blockIdx.x * width;
    const float* y = out + (i64)blockIdx.x * width;
    float dots = 0.0f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) dots += d[i] * y[i];
    dots = normal ? block_sum(dots, scratch) : 0.0f;
    float factor = (normal ? 1.0f / fmaxf(norms[blockIdx.x], 1e-12f) : 1.0f) / (mode == CLS ? 1 : rows);
    for (int r = blockIdx.y; r < rows; r += gridDim.y) {
        for (int i = threadIdx.x * 8; i < width; i += blockDim.x * 8) {
            float a[8], b[8];
            load8(d + i, a);
            load8(y + i, b);
            #pragma unroll
            for (int j = 0; j < 8; j++) a[j] = mode == CLS && r > 0 ? 0.0f : (a[j] - b[j] * dots) * factor;
            store8(d_hidden + (i64)(first + r) * width + i, a);
        }
    }
}

// InfoNCE (van den Oord et al., 2018): row r's loss is −ln softmax(similarities[r] / temperature) at column first + r.
// similarities f32 [rows, columns] become the gradient of scale · Σ losses; losses f32 [rows]; hits int [rows] (may be null): 1 where
// no column exceeds the own. left_out: bytes [rows, columns] or null; a column not 0 takes no part, the own one always does.
// Grid: rows; block: 256.
extern "C" __global__ void info_nce(
    float* similarities, float* losses, int* hits, const unsigned char* left_out, int columns, int first, float inverse, float scale) {
    __shared__ float scratch[32];
    float* x = similarities + (i64)blockIdx.x * columns;
    const unsigned char* out = left_out ? left_out + (i64)blockIdx.x * columns : 0;
    int own = first + blockIdx.x;
    float most = -INFINITE, sum = 0.0f, own_value = x[own];
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        if (!out || !out[i] || i == own) most = fmaxf(most, x[i]);
    }
    most = block_max(most, scratch);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        if (!out || !out[i] || i == own) sum += expf((x[i] - most) * inverse);
    }
    sum = block_sum(sum, scratch);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        bool counts = !out || !out[i] || i == own;
        float p = counts ? expf((x[i] - most) * inverse) / sum : 0.0f;
        x[i] = (p - (i == own ? 1.0f : 0.0f)) * inverse * scale;
    }
    if (threadIdx.x == 0) {
        losses[blockIdx.x] = (most - own_value) * inverse + logf(sum);
        if (hits) hits[blockIdx.x] = own_value >= most;
    }
}

// ---- the optimizer

// Rounds to one of the two neighbours, each with the probability that makes the mean exact; `noise`: 16 random bits.
__device__ __forceinline__ bf16 round_by_chance(float x, u32 noise) {
    u32 bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return to_bf16(x);
    return (bf16)((bits + (noise & 0xffffu)) >> 16);
}

// Sixteen random bits for each of elements 8 · index.. of a step.
__device__ __forceinline__ void noise8(u32 (&noise)[8], i64 index, u32 step, u32 stream, u32 seed_low, u32 seed_high) {
    uint4 r = philox(make_uint4((u32)index, (u32)(index >> 32), step, stream), seed_low, seed_high);
    noise[0] = r.x; noise[1] = r.x >> 16; noise[2] = r.y; noise[3] = r.y >> 16;
    noise[4] = r.z; noise[5] = r.z >> 16; noise[6] = r.w; noise[7] = r.w >> 16;
}

struct AdamW {
    float lr, beta1, beta2, eps;
    float decay, pull;        // what values lose of themselves, and what gradients gain of them
    float correction1, root2;  // 1 − β₁ᵗ and √(1 − β₂ᵗ)
};

__device__ __forceinline__ float adamw(const AdamW& a, float value, float gradient, float& first, float& second) {
    gradient += a.pull * value;
    first = first * a.beta1 + gradient * (1.0f - a.beta1);
    second = second * a.beta2 + gradient * gradient * (1.0f - a.beta2);
    return value * (1.0f - a.decay) - a.lr / a.correction1 * first / (sqrtf(second) / a.root2 + a.eps);
}

// AdamW (Loshchilov & Hutter, 2019) over flat f32 values, moments and gradients; shadow: bf16 copy of the values, or null.
// decay = lr · weight decay and pull = 0; for plain Adam decay = 0 and pull = weight decay. correction1 = 1 − β₁ᵗ, root2 = √(1 − β₂ᵗ). Gradients are multiplied by scale and, where it is not null, by
// *more_scale. All arrays are 16-byte aligned. Grid: ceil(count / 8 / block); block: 256.
extern "C" __global__ void adamw_f32(
    float* values, float* first, float* second, const float* gradients, bf16* shadow, i64 count, float lr, float beta1, float beta2,
    float eps, float decay, float pull, float correction1, float root2, float scale, const float* more_scale) {
    AdamW a = {lr, beta1, beta2, eps, decay, pull, correction1, root2};
    i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (more_scale) scale *= *more_scale;
    if (i + 8 <= count) {
        float w[8], m[8], s[8], g[8];
        load8((const float*)values + i, w);
        load8((const float*)first + i, m);
        load8((const float*)second + i, s);
        load8(gradients + i, g);
        #pragma unroll
        for (int j = 0; j < 8; j++) w[j] = adamw(a, w[j], g[j] * scale, m[j], s[j]);
        store8(values + i, w);
        store8(first + i, m);
        store8(second + i, s);
        if (shadow) store8(shadow + i, w);
    } else {
        for (; i < count; i++) {
            values[i] = adamw(a, values[i], gradients[i] * scale, first[i], second[i]);
            if (shadow) shadow[i] = to_bf16(values[i]);
        }
    }
}

// The same with bf16 values alone, rounded by chance with noise of (seed, step, stream); stream tells arrays apart.
extern "C" __global__ void adamw_bf16(
    bf16* values, float* first, float* second, const float* gradients, i64 count, float lr, float beta1, float beta2, float eps,
    float decay, float pull, float correction1, float root2, float scale, const float* more_scale, u32 seed_low, u32 seed_high, u32 step, u32 stream) {
    AdamW a = {lr, beta1, beta2, eps, decay, pull, correction1, root2};
    i64 index = (i64)blockIdx.x * blockDim.x + threadIdx.x, i = index * 8;
    if (i >= count) return;
    if (more_scale) scale *= *more_scale;
    u32 noise[8];
    noise8(noise, index, step, stream, seed_low, seed_high);
    #pragma unroll
    for (int j = 0; j < 8; j++) {
        if (i + j < count) {
            float m = first[i + j], s = second[i + j];
            values[i + j] = round_by_chance(adamw(a, to_f32(values[i + j]), gradients[i + j] * scale, m, s), noise[j]);
            first[i + j] = m;
            second[i + j] = s;
        }
    }
}

// parts[b] = Σ x² over block b's share, f64: the first half of a gradient's norm. Grid: as many as parts; block: 512.
extern "C" __global__ void square_parts(double* parts, const float* x, i64 count) {
    __shared__ float scratch[32];
    i64 eights = count / 8, step = (i64)gridDim.x * blockDim.x;
    float sum[8] = {};
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < eights; i += step) {
        float v[8];
        load8(x + i * 8, v);
        #pragma unroll
        for (int j = 0; j < 8; j++) sum[j] += v[j] * v[j];
    }
    if (blockIdx.x == 0 && threadIdx.x < count % 8) sum[0] += x[eights * 8 + threadIdx.x] * x[eights * 8 + threadIdx.x];
    float total = block_sum(((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7])), scratch);
    if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

// norms[0] = √Σ parts · |scale|, norms[1] = what to multiply gradients with so that their norm is at most `most` (0: no limit).
// Grid: 1; block: 32.
extern "C" __global__ void norm_of_parts(float* norms, const double* parts, int count, float scale, float most) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += 32) sum += parts[i];
    #pragma unroll
    for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(FULL_MASK, sum, step);
    if (threadIdx.x == 0) {
        float norm = (float)sqrt(sum) * fabsf(scale);
        norms[0] = norm;
        norms[1] = most > 0.0f && norm > most ? most / (norm + 1e-6f) : 1.0f;
    }
}

// ---- copies

// out = x · scale. Grid: ceil(count / 8 / block); block: 256; 16-byte aligned.
template <class To, class From>
__device__ __forceinline__ void convert(To* out, const From* x, i64 count, float scale, int add) {
    i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i + 8 <= count) {
        float v[8], old[8];
        load8(x + i, v);
        if (add) load8((const To*)out + i, old);
        #pragma unroll
        for (int j = 0; j < 8; j++) v[j] = add ? old[j] + v[j] * scale : v[j] * scale;
        store8(out + i, v);
    } else {
        for (; i < count; i++) store(out + i, (add ? to_f32(out[i]) : 0.0f) + to_f32(x[i]) * scale);
    }
}

extern "C" __global__ void f32_to_bf16(bf16* out, const float* x, i64 count, float scale) { convert(out, x, count, scale, 0); }
extern "C" __global__ void bf16_to_f32(float* out, const bf16* x, i64 count, float scale) { convert(out, x, count, scale, 0); }
// out += x · scale.
extern "C" __global__ void add_f32(float* out, const float* x, i64 count, float scale) { convert(out, x, count, scale, 1); }
extern "C" __global__ void add_bf16_to_f32(float* out, const bf16* x, i64 count, float scale) { convert(out, x, count, scale, 1); }
extern "C" __global__ void add_bf16(bf16* out, const bf16* x, i64 count, float scale) { convert(out, x, count, scale, 1); }

// out = weight + scale · update, rounded by chance: the merged weights that responses are drawn with. weight bf16, update f32.
// Noise of (seed, step, stream). Grid: ceil(count / 8 / block); block: 256; 16-byte aligned, count % 8 == 0.
extern "C" __global__ void merge_weight(
    bf16* out, const bf16* weight, const float* update, i64 count, float scale, u32 seed_low, u32 seed_high, u32 step, u32 stream) {
    i64 index = (i64)blockIdx.x * blockDim.x + threadIdx.x, i = index * 8;
    if (i >= count) return;
    float w[8], u[8];
    u32 noise[8], r[8];
    load8(weight + i, w);
    load8(update + i, u);
    noise8(noise, index, step, stream, seed_low, seed_high);
    #pragma unroll
    for (int j = 0; j < 8; j++) r[j] = round_by_chance(w[j] + scale * u[j], noise[j]);
    *(uint4*)(out + i) = make_uint4(r[0] | r[1] << 16, r[2] | r[3] << 16, r[4] | r[5] << 16, r[6] | r[7] << 16);
}

// out [columns, rows] in bf16 = x [rows, columns] transposed, times scale. Grid: (ceil(columns / 32), ceil(rows / 32)); block: 256.
template <class T>
__device__ __forceinline__ void transpose(bf16* out, const T* x, int rows, int columns, float scale) {
    __shared__ float tile[32][33];
    int column = blockIdx.x * 32 + (threadIdx.x & 31);
    for (int r = threadIdx.x >> 5; r < 32; r += 8) {
        int row = blockIdx.y * 32 + r;
        if (row < rows && column < columns) tile[r][threadIdx.x & 31] = to_f32(x[(i64)row * columns + column]) * scale;
    }
    __syncthreads();
    int row = blockIdx.y * 32 + (threadIdx.x & 31);
    for (int c = threadIdx.x >> 5; c < 32; c += 8) {
        int to = blockIdx.x * 32 + c;
        if (to < columns && row < rows) out[(i64)to * rows + row] = to_bf16(tile[threadIdx.x & 31][c]);
    }
}

extern "C" __global__ void transpose_f32(bf16* out, const float* x, int rows, int columns, float scale) { transpose(out, x, rows, columns, scale); }
extern "C" __global__ void transpose_bf16(bf16* out, const bf16* x, int rows, int columns, float scale) { transpose(out, x, rows, columns, scale); }
