// What a BERT computes beside products and attention, forward and backward. Rows of T; statistics, biases and gradients of
// parameters in f32. A kernel with _8 in its name reads eight values at once: rows begin at multiples of 16 bytes and are
// multiples of eight long. Rows lie in the grid's x, which may be long.

// N values at once.
template <int N, typename S> __device__ __forceinline__ void take(float (&x)[N], const S* from) {
    if constexpr (N == 8) load8(x, from);
    else x[0] = load(*from);
}
template <int N, typename S> __device__ __forceinline__ void put(S* to, const float (&x)[N]) {
    if constexpr (N == 8) store8(to, x);
    else *to = store<S>(x[0]);
}

// out[row] = words[tokens[row]] + places[positions[row]] + kind, the sum of a BERT's embeddings. Grid: rows.
template <int N>
__device__ __forceinline__ void embed_text_of(T* out, const T* words, const T* places, const T* kind, const u32* tokens,
                                              const u32* positions, int width) {
    const u64 row = blockIdx.x;
    const T* word = words + (u64)tokens[row] * width;
    const T* place = places + (u64)positions[row] * width;
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
        float a[N], b[N], c[N];
        take<N>(a, word + i);
        take<N>(b, place + i);
        take<N>(c, kind + i);
#pragma unroll
        for (int j = 0; j < N; ++j) a[j] += b[j] + c[j];
        put<N>(out + row * width + i, a);
    }
}
extern "C" __global__ void embed_text(T* out, const T* words, const T* places, const T* kind, const u32* tokens,
                                      const u32* positions, int width) {
    after_others();
    embed_text_of<1>(out, words, places, kind, tokens, positions, width);
}
extern "C" __global__ void embed_text_8(T* out, const T* words, const T* places, const T* kind, const u32* tokens,
                                        const u32* positions, int width) {
    after_others();
    embed_text_of<8>(out, words, places, kind, tokens, positions, width);
}

// The gradient of a table whose rows were gathered: table[ids[u]] += Σ slope[order[k]] for k in starts[u] .. starts[u + 1], in that
// order; ids are distinct. Grid: (ids, columns / (256 · N)).
template <int N>
__device__ __forceinline__ void scatter_of(float* table, const T* slope, const u32* order, const u32* starts, const u32* ids,
                                           int width) {
    const int i = (blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (i >= width) return;
    const u32 first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    float sum[N] = {}, x[N];
#pragma unroll 4
    for (u32 k = first; k < end; ++k) {
        take<N>(x, slope + (u64)order[k] * width + i);
#pragma unroll
        for (int j = 0; j < N; ++j) sum[j] += x[j];
    }
    float* to = table + (u64)ids[blockIdx.x] * width + i;
    take<N>(x, (const float*)to);
#pragma unroll
    for (int j = 0; j < N; ++j) x[j] += sum[j];
    put<N>(to, x);
}
extern "C" __global__ void scatter(float* table, const T* slope, const u32* order, const u32* starts, const u32* ids, int width) {
    after_others();
    scatter_of<1>(table, slope, order, starts, ids, width);
}
extern "C" __global__ void scatter_8(float* table, const T* slope, const u32* order, const u32* starts, const u32* ids, int width) {
    after_others();
    scatter_of<8>(table, slope, order, starts, ids, width);
}

// out[k] = x[rows[k]], or with `back` out[rows[k]] = x[k]. Grid: (rows, columns / (128 · N)). Block: 128.
template <int N> __device__ __forceinline__ void move_rows_of(T* out, const T* x, const u32* rows, int width, int back) {
    const int i = (blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (i >= width) return;
    const u64 here = blockIdx.x, there = rows[blockIdx.x];
    float v[N];
    take<N>(v, x + (back ? here : there) * width + i);
    put<N>(out + (back ? there : here) * width + i, v);
}
extern "C" __global__ void move_rows(T* out, const T* x, const u32* rows, int width, int back) {
    after_others();
    move_rows_of<1>(out, x, rows, width, back);
}
extern "C" __global__ void move_rows_8(T* out, const T* x, const u32* rows, int width, int back) {
    after_others();
    move_rows_of<8>(out, x, rows, width, back);
}

// x + delta + delta_bias, rounded, into `sum`, and its LayerNorm times weight plus bias into `out` (Ba et al., 2016). `delta`,
// `delta_bias` and `sum` may be null. A warp a row; what it reads again is in its L1 by then, or in registers. Grid: rows / 4.
// Block: 128.
#define ROW_CHUNKS 4 // of 256 values: rows of at most 1024 in the kernels that read eight at once

__device__ __forceinline__ float round_to_T(float x) { return load(store<T>(x)); }

extern "C" __global__ void layer_norm(T* out, T* sum, const T* x, const T* delta, const float* delta_bias, const float* weight,
                                      const float* bias, int rows, int width, float eps) {
    after_others();
    const u64 row = blockIdx.x * 4 + (threadIdx.x >> 5);
    const int lane = threadIdx.x & 31;
    if (row >= rows) return;
    const auto value = [&](int i) {
        float v = load(x[row * width + i]);
        if (delta) v += load(delta[row * width + i]);
        if (delta_bias) v += delta_bias[i];
        return round_to_T(v);
    };
    float total = 0.0f, squares = 0.0f;
    for (int i = lane; i < width; i += 32) total += value(i);
    const float mean = warp_sum(total) / width;
    for (int i = lane; i < width; i += 32) {
        const float v = value(i) - mean;
        squares += v * v;
    }
    const float factor = 1.0f / sqrtf(warp_sum(squares) / width + eps);
    for (int i = lane; i < width; i += 32) {
        const float v = value(i);
        if (sum) sum[row * width + i] = store<T>(v);
        out[row * width + i] = store<T>((v - mean) * factor * weight[i] + bias[i]);
    }
}

// What is read of a row is asked for at once: one wait instead of one for every chunk.
__device__ __forceinline__ void take_row(float (&x)[ROW_CHUNKS][8], const T* from, int lane, int width) {
#pragma unroll
    for (int c = 0; c < ROW_CHUNKS; ++c) {
        const int i = (c * 32 + lane) * 8;
        if (i < width) load8(x[c], from + i);
    }
}

extern "C" __global__ void __launch_bounds__(128) layer_norm_8(T* out, T* sum, const T* x, const T* delta, const float* delta_bias,
                                                               const float* weight, const float* bias, int rows, int width,
                                                               float eps) {
    after_others();
    const u64 row = blockIdx.x * 4 + (threadIdx.x >> 5);
    const int lane = threadIdx.x & 31;
    if (row >= rows) return;
    float v[ROW_CHUNKS][8] = {}, total = 0.0f, squares = 0.0f;
    take_row(v, x + row * width, lane, width);
    if (delta) {
        float more[ROW_CHUNKS][8] = {};
        take_row(more, delta + row * width, lane, width);
#pragma unroll
        for (int c = 0; c < ROW_CHUNKS; ++c) {
#pragma unroll
            for (int j = 0; j < 8; ++j) v[c][j] += more[c][j];
        }
    }
#pragma unroll
    for (int c = 0; c < ROW_CHUNKS; ++c) {
        const int i = (c * 32 + lane) * 8;
        if (i >= width) break;
        if (delta_bias) {
            float more[8];
            load8(more, delta_bias + i);
#pragma unroll
            for (int j = 0; j < 8; ++j) v[c][j] += more[j];
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            v[c][j] = round_to_T(v[c][j]);
            total += v[c][j];
        }
        if (sum) store8(sum + row * width + i, v[c]);
    }
    const float mean = warp_sum(total) / width;
#pragma unroll
    for (int c = 0; c < ROW_CHUNKS; ++c) {
        if ((c * 32 + lane) * 8 >= width) break;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            v[c][j] -= mean;
            squares += v[c][j] * v[c][j];
        }
    }
    const float factor = 1.0f / sqrtf(warp_sum(squares) / width + eps);
#pragma unroll
    for (int c = 0; c < ROW_CHUNKS; ++c) {
        const int i = (c * 32 + lane) * 8;
        if (i >= width) break;
        float w[8], b[8];
        load8(w, weight + i);
        load8(b, bias + i);
#pragma unroll
        for (int j = 0; j < 8; ++j) w[j] = v[c][j] * factor * w[j] + b[j];
        store8(out + row * width + i, w);
    }
}

// Its gradient: `d_sum` is that of x and of delta. `more` (null: nothing) is added to `slope` first. `parts` holds for each
// of `blocks` rows of `width` what gives, summed by add_parts, the gradients of weight, of bias and of delta_bias: [3, blocks, width].
// In layer_norm_backward, whose warps have a row of parts each (4 · grid of them), parts must be zero. Block: 128.
extern "C" __global__ void layer_norm_backward(T* d_sum, float* parts, const T* slope, const T* more, const T* sum,
                                               const float* weight, int rows, int width, float eps) {
    after_others();
    const int lane = threadIdx.x & 31, blocks = 4 * gridDim.x;
    const u64 warp = blockIdx.x * 4 + (threadIdx.x >> 5), plane = (u64)blocks * width;
    float* own = parts + warp * width;
    for (u64 row = warp; row < rows; row += blocks) {
        const T* v = sum + row * width;
        const auto d = [&](int i) {
            const float first = load(slope[row * width + i]);
            return more ? first + load(more[row * width + i]) : first;
        };
        float total = 0.0f, squares = 0.0f, plain = 0.0f, dots = 0.0f;
        for (int i = lane; i < width; i += 32) total += load(v[i]);
        const float mean = warp_sum(total) / width;
        for (int i = lane; i < width; i += 32) {
            const float x = load(v[i]) - mean, dw = d(i) * weight[i];
            squares += x * x;
            plain += dw;
            dots += dw * x;
        }
        const float factor = 1.0f / sqrtf(warp_sum(squares) / width + eps);
        plain = warp_sum(plain) / width;
        dots = warp_sum(dots) / width * factor * factor;
        for (int i = lane; i < width; i += 32) {
            const float x = load(v[i]) - mean, di = d(i);
            const T rounded = store<T>(factor * (di * weight[i] - plain - x * dots));
            own[i] += di * x * factor;
            own[plane + i] += di;
            own[2 * plane + i] += load(rounded);
            d_sum[row * width + i] = rounded;
        }
    }
}

// Sums over a block of at most four warps, the same in each of its threads and in every run. `room` is zero where there is no warp.
template <int N> __device__ __forceinline__ void block_sums(float (&x)[N], float4 (&room)[N]) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
    for (int n = 0; n < N; ++n) {
        x[n] = warp_sum(x[n]);
        if (lane == 0) ((float*)&room[n])[warp] = x[n];
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < N; ++n) x[n] = room[n].x + room[n].y + room[n].z + room[n].w;
}

#define ROWS_BACK 2 // that a block has at once

// A thread has eight columns, whose sums stay in its registers, of all rows of its block.
template <bool MORE>
__device__ __forceinline__ void layer_norm_backward_of(T* d_sum, float* parts, const T* slope, const T* more, const T* sum,
                                                       const float* weight, int rows, int width, float eps,
                                                       float4 (&totals)[ROWS_BACK], float4 (&others)[3 * ROWS_BACK]) {
    const int i = threadIdx.x * 8;
    const bool here = i < width;
    const float share = 1.0f / width;
    float own[3][8] = {}, w[8] = {};
    if (here) load8(w, weight + i);
    for (int first = blockIdx.x * ROWS_BACK; first < rows; first += gridDim.x * ROWS_BACK) {
        float v[ROWS_BACK][8], d[ROWS_BACK][8], m[ROWS_BACK][8], total[ROWS_BACK], other[3 * ROWS_BACK];
        // All is asked for before any of it is waited for: rows and columns that are not there read what is, and leave it.
#pragma unroll
        for (int r = 0; r < ROWS_BACK; ++r) {
            const u64 at = (u64)min(first + r, rows - 1) * width + (here ? i : 0);
            load8(v[r], sum + at);
            load8(d[r], slope + at);
            if (MORE) load8(m[r], more + at);
        }
#pragma unroll
        for (int r = 0; r < ROWS_BACK; ++r) {
            total[r] = 0.0f;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                total[r] += v[r][j];
                if (MORE) d[r][j] += m[r][j];
            }
            if (!here) total[r] = 0.0f;
        }
        block_sums(total, totals);
#pragma unroll
        for (int r = 0; r < ROWS_BACK; ++r) {
            const float mean = total[r] * share;
            float squares = 0.0f, plain = 0.0f, dots = 0.0f;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                v[r][j] -= mean;
                squares += v[r][j] * v[r][j];
                plain += d[r][j] * w[j];
                dots += d[r][j] * w[j] * v[r][j];
            }
            other[3 * r] = here ? squares : 0.0f;
            other[3 * r + 1] = here ? plain : 0.0f;
            other[3 * r + 2] = here ? dots : 0.0f;
        }
        block_sums(other, others);
#pragma unroll
        for (int r = 0; r < ROWS_BACK; ++r) {
            if (!here || first + r >= rows) break;
            const float factor = rsqrtf(other[3 * r] * share + eps), plain = other[3 * r + 1] * share;
            const float dots = other[3 * r + 2] * share * factor * factor;
            float out[8];
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                own[0][j] += d[r][j] * v[r][j] * factor;
                own[1][j] += d[r][j];
                out[j] = round_to_T(factor * (d[r][j] * w[j] - plain - v[r][j] * dots));
                own[2][j] += out[j];
            }
            store8(d_sum + (u64)(first + r) * width + i, out);
        }
    }
    if (!here) return;
#pragma unroll
    for (int p = 0; p < 3; ++p) store8(parts + ((u64)p * gridDim.x + blockIdx.x) * width + i, own[p]);
}

// As layer_norm_backward, with a row of parts for each block, written whole. Block: a thread for eight columns, whole warps.
extern "C" __global__ void __launch_bounds__(128) layer_norm_backward_8(T* d_sum, float* parts, const T* slope, const T* more,
                                                                        const T* sum, const float* weight, int rows, int width,
                                                                        float eps) {
    after_others();
    __shared__ float4 totals[ROWS_BACK], others[3 * ROWS_BACK];
    const int i = threadIdx.x;
    if (i < ROWS_BACK) totals[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (i < 3 * ROWS_BACK) others[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    __syncthreads();
    if (more) layer_norm_backward_of<true>(d_sum, parts, slope, more, sum, weight, rows, width, eps, totals, others);
    else layer_norm_backward_of<false>(d_sum, parts, slope, more, sum, weight, rows, width, eps, totals, others);
}

// out[i] += Σ over r of parts[r · pitch + i], for up to three outs (null: none) of `width` values; each has its parts `plane`
// values after the one before. Where the bit of an out is set in `fresh` it is written, whatever it was. Grid: (columns / 32, outs).
// Block: 512, sixteen rows of 32.
#define SUMMED 8 // parts that a thread reads at once
extern "C" __global__ void add_parts(float* first, float* second, float* third, const float* parts, int count, int width, int pitch,
                                     int plane, int fresh) {
    after_others();
    __shared__ float sums[16][32];
    float* out = blockIdx.y == 0 ? first : blockIdx.y == 1 ? second : third;
    if (!out) return;
    const int lane = threadIdx.x & 31, row = threadIdx.x >> 5, i = blockIdx.x * 32 + lane;
    float sum = 0.0f;
    if (i < width) {
        const float* from = parts + (u64)blockIdx.y * plane + i;
        for (int r = row; r < count; r += 16 * SUMMED) {
            float x[SUMMED] = {};
#pragma unroll
            for (int u = 0; u < SUMMED; ++u) {
                if (r + 16 * u < count) x[u] = from[(u64)(r + 16 * u) * pitch];
            }
#pragma unroll
            for (int u = 0; u < SUMMED; ++u) sum += x[u];
        }
    }
    sums[row][lane] = sum;
    __syncthreads();
    if (row != 0 || i >= width) return;
    for (int r = 1; r < 16; ++r) sum += sums[r][lane];
    out[i] = fresh >> blockIdx.y & 1 ? sum : out[i] + sum;
}

// parts[b, i] = Σ x[r, i] over rows r = b, b + blocks, …: the gradient of a bias, before add_parts. Grid: (blocks, columns / (256 · N)).
#define SUMMED_ROWS 4 // rows that a thread reads at once
template <int N> __device__ __forceinline__ void column_parts_of(float* parts, const T* x, int rows, int width) {
    const int i = (blockIdx.y * blockDim.x + threadIdx.x) * N, step = gridDim.x;
    if (i >= width) return;
    float sum[N] = {};
    for (int row = blockIdx.x; row < rows; row += SUMMED_ROWS * step) {
        float v[SUMMED_ROWS][N] = {};
#pragma unroll
        for (int u = 0; u < SUMMED_ROWS; ++u) {
            if (row + u * step < rows) take<N>(v[u], x + (u64)(row + u * step) * width + i);
        }
#pragma unroll
        for (int u = 0; u < SUMMED_ROWS; ++u) {
#pragma unroll
            for (int j = 0; j < N; ++j) sum[j] += v[u][j];
        }
    }
    put<N>(parts + (u64)blockIdx.x * width + i, sum);
}
extern "C" __global__ void column_parts(float* parts, const T* x, int rows, int width) { after_others(); column_parts_of<1>(parts, x, rows, width); }
// Without a bound the compiler takes 32 registers, and asks for one or two rows at a time.
extern "C" __global__ void __launch_bounds__(256, 4) column_parts_8(float* parts, const T* x, int rows, int width) {
    after_others();
    column_parts_of<8>(parts, x, rows, width);
}

// x += bias. Grid: (rows, columns / (256 · N)).
template <int N> __device__ __forceinline__ void add_bias_of(T* x, const T* bias, int width) {
    const int i = (blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (i >= width) return;
    float v[N], b[N];
    T* at = x + (u64)blockIdx.x * width + i;
    take<N>(v, (const T*)at);
    take<N>(b, bias + i);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] += b[j];
    put<N>(at, v);
}
extern "C" __global__ void add_bias(T* x, const T* bias, int width) { after_others(); add_bias_of<1>(x, bias, width); }
extern "C" __global__ void add_bias_8(T* x, const T* bias, int width) { after_others(); add_bias_of<8>(x, bias, width); }

// out = activation(x + bias); out may be x. Grid: (rows, columns / (256 · N)).
template <int N> __device__ __forceinline__ void bend_of(T* out, const T* x, const float* bias, int width, int kind) {
    const int i = (blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (i >= width) return;
    const u64 at = (u64)blockIdx.x * width + i;
    float v[N], b[N], slope;
    take<N>(v, x + at);
    take<N>(b, bias + i);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = activation(v[j] + b[j], kind, &slope);
    put<N>(out + at, v);
}
extern "C" __global__ void bend(T* out, const T* x, const float* bias, int width, int kind) { after_others(); bend_of<1>(out, x, bias, width, kind); }
extern "C" __global__ void bend_8(T* out, const T* x, const float* bias, int width, int kind) { after_others(); bend_of<8>(out, x, bias, width, kind); }

// The gradient of x in the place of that of out, and parts of the bias' as in column_parts. Where x has its bias already it is null. Grid: (blocks, columns / (256 · N)).
template <int N>
__device__ __forceinline__ void bend_backward_of(T* slope, float* parts, const T* x, const float* bias, int rows, int width, int kind) {
    const int i = (blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (i >= width) return;
    float b[N] = {}, sum[N] = {};
    if (bias) take<N>(b, bias + i);
#pragma unroll 2
    for (u64 row = blockIdx.x; row < rows; row += gridDim.x) {
        const u64 at = row * width + i;
        float v[N], d[N], bend;
        take<N>(v, x + at);
        take<N>(d, (const T*)slope + at);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            activation(v[j] + b[j], kind, &bend);
            d[j] = round_to_T(d[j] * bend);
            sum[j] += d[j];
        }
        put<N>(slope + at, d);
    }
    put<N>(parts + (u64)blockIdx.x * width + i, sum);
}
extern "C" __global__ void bend_backward(T* slope, float* parts, const T* x, const float* bias, int rows, int width, int kind) {
    after_others();
    bend_backward_of<1>(slope, parts, x, bias, rows, width, kind);
}
extern "C" __global__ void bend_backward_8(T* slope, float* parts, const T* x, const float* bias, int rows, int width, int kind) {
    after_others();
    bend_backward_of<8>(slope, parts, x, bias, rows, width, kind);
}

// One vector a text, f32: its first row, or (mean) the mean of its rows starts[t] .. starts[t + 1]. Grid: (texts, columns / (128 · N)).
// Block: 128.
template <int N> __device__ __forceinline__ void pool_of(float* out, const T* hidden, const u32* starts, int width, int mean) {
    const int i = (blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (i >= width) return;
    const u32 first = starts[blockIdx.x], rows = mean ? starts[blockIdx.x + 1] - first : 1;
    float sum[N] = {}, x[N];
#pragma unroll 8
    for (u32 r = 0; r < rows; ++r) {
        take<N>(x, hidden + (u64)(first + r) * width + i);
#pragma unroll
        for (int j = 0; j < N; ++j) sum[j] += x[j];
    }
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] /= rows;
    put<N>(out + (u64)blockIdx.x * width + i, sum);
}
extern "C" __global__ void pool(float* out, const T* hidden, const u32* starts, int width, int mean) {
    after_others();
    pool_of<1>(out, hidden, starts, width, mean);
}
extern "C" __global__ void pool_8(float* out, const T* hidden, const u32* starts, int width, int mean) {
    after_others();
    pool_of<8>(out, hidden, starts, width, mean);
}

// Its gradient; every row is written. Grid: (texts, columns / (128 · N), any): blocks of one text share its rows. Block: 128.
template <int N>
__device__ __forceinline__ void pool_backward_of(T* d_hidden, const float* slope, const u32* starts, int width, int mean) {
    const int i = (blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (i >= width) return;
    const u32 first = starts[blockIdx.x], rows = starts[blockIdx.x + 1] - first;
    float d[N], none[N] = {};
    take<N>(d, slope + (u64)blockIdx.x * width + i);
#pragma unroll
    for (int j = 0; j < N; ++j) d[j] /= mean ? rows : 1;
    for (u32 r = blockIdx.z; r < rows; r += gridDim.z) {
        T* to = d_hidden + (u64)(first + r) * width + i;
        if (mean || r == 0) put<N>(to, d);
        else put<N>(to, none);
    }
}
extern "C" __global__ void pool_backward(T* d_hidden, const float* slope, const u32* starts, int width, int mean) {
    after_others();
    pool_backward_of<1>(d_hidden, slope, starts, width, mean);
}
extern "C" __global__ void pool_backward_8(T* d_hidden, const float* slope, const u32* starts, int width, int mean) {
    after_others();
    pool_backward_of<8>(d_hidden, slope, starts, width, mean);
}
