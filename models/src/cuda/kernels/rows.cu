// Work on rows of activations and of parameters. Rows of T, hidden states and statistics in f32.

// out[row] = table[tokens[row]] · scale, in f32. Grid: rows.
extern "C" __global__ void embed(float* out, const T* table, int stride, const u32* tokens, int width, float scale) {
    const T* from = table + (u64)tokens[blockIdx.x] * stride;
    float* to = out + (u64)blockIdx.x * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) to[i] = load(store<T>(load(from[i]) * scale));
}

// hidden_out[row] = hidden[from] + added[from] with from = rows[row], and its RMSNorm times the weight into up to three places.
// `rows` (none: the row itself), `added` (none: nothing), `hidden_out` (none: not kept) and places two and three may be null.
// Grid: rows. Block: 256. The row is read again for the second pass: it is in L1 or L2 by then.
extern "C" __global__ void add_norm(const float* hidden, const u32* rows, const T* added, int added_stride, float* hidden_out,
                                    const float* weight, float offset, float eps, int width, T* out1, int stride1, T* out2,
                                    int stride2, T* out3, int stride3, float* inverse_out) {
    const u64 row = blockIdx.x;
    const u64 source = rows ? rows[row] : row;
    const float* from = hidden + source * width;
    const T* more = added ? added + source * added_stride : nullptr;
    float squares = 0.0f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float x = from[i] + (more ? load(more[i]) : 0.0f);
        if (hidden_out) hidden_out[row * width + i] = x;
        squares += x * x;
    }
    const float inverse = 1.0f / sqrtf(block_sum(squares) / width + eps);
    if (inverse_out && threadIdx.x == 0) inverse_out[row] = inverse;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float x = from[i] + (more ? load(more[i]) : 0.0f);
        T y = store<T>(x * inverse * (weight[i] + offset));
        out1[row * stride1 + i] = y;
        if (out2) out2[row * stride2 + i] = y;
        if (out3) out3[row * stride3 + i] = y;
    }
}

// What the gradient of a norm's output gives its input: added to `gradient` (f32, `[rows, width]`, or written where `fresh`),
// and the sum as T in `out` (null: not wanted). `hidden` and `inverse` are the norm's input and 1/rms; `rows` picks the row of
// `hidden`. Grid: rows. Block: 256.
extern "C" __global__ void norm_backward(float* gradient, T* out, int out_stride, const T* slope, int slope_stride,
                                         const float* hidden, const u32* rows, const float* inverse, const float* weight,
                                         float offset, int width, int fresh) {
    const u64 row = blockIdx.x;
    const T* dy = slope + row * slope_stride;
    const float* x = hidden + (u64)(rows ? rows[row] : row) * width;
    const float r = inverse[row];
    float dot = 0.0f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) dot += load(dy[i]) * (weight[i] + offset) * x[i];
    dot = block_sum(dot) * r * r / width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float dx = r * (load(dy[i]) * (weight[i] + offset) - x[i] * dot);
        float sum = fresh ? dx : gradient[row * width + i] + dx;
        gradient[row * width + i] = sum;
        if (out) out[row * out_stride + i] = store<T>(sum);
    }
}

// parts[b, i] = Σ slope[r, i] · hidden[r, i] / rms[r] over rows r = b, b + blocks, …: the gradient of a norm's weight, before
// add_parts. Grid: (blocks, width / 256). Block: 256.
extern "C" __global__ void norm_weight_parts(float* parts, const T* slope, int slope_stride, const float* hidden, const float* inverse,
                                             int rows, int width) {
    const int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= width) return;
    float sum = 0.0f;
#pragma unroll 4
    for (u64 row = blockIdx.x; row < rows; row += gridDim.x)
        sum += load(slope[row * slope_stride + i]) * hidden[row * width + i] * inverse[row];
    parts[(u64)blockIdx.x * width + i] = sum;
}

// The gradient of an embedding: table[ids[u]] += scale · Σ slope[order[k]] for k in starts[u] .. starts[u + 1], in that order; ids
// are distinct. Grid: (ids, width / 256). Block: 256.
extern "C" __global__ void embed_gradient(float* table, const float* slope, const u32* order, const u32* starts, const u32* ids,
                                          int width, float scale) {
    const int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= width) return;
    const u32 first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    float sum = 0.0f;
#pragma unroll 4
    for (u32 k = first; k < end; ++k) sum += slope[(u64)order[k] * width + i];
    table[(u64)ids[blockIdx.x] * width + i] += scale * sum;
}

// x += row, each row of it. Grid: (rows, columns / 256).
extern "C" __global__ void add_row(T* x, int stride, const T* row, int columns) {
    const int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= columns) return;
    T* at = x + (u64)blockIdx.x * stride + i;
    *at = store<T>(load(*at) + load(row[i]));
}

// out[target[group]] = Σ from[order[k]] for k in starts[group] .. starts[group + 1], in that order, and as T in `rounded`.
// Grid: groups.
extern "C" __global__ void sum_rows(float* out, T* rounded, int rounded_stride, const float* from, const u32* target,
                                    const u32* order, const u32* starts, int width) {
    const u64 to = target[blockIdx.x];
    const u32 first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float sum = 0.0f;
        for (u32 k = first; k < end; ++k) sum += from[(u64)order[k] * width + i];
        out[to * width + i] = sum;
        rounded[to * rounded_stride + i] = store<T>(sum);
    }
}

// Rotates `heads` heads of `dim` in each row by the angles of the row's position, backwards where sign is −1. The table has
// cosines and then sines, dim / 2 each, for every position. Grid: (rows, heads). Block: dim / 2 rounded up to a warp.
extern "C" __global__ void rotate(T* x, int stride, const u32* positions, const float* table, int dim, float sign) {
    const int half = dim / 2;
    T* head = x + (u64)blockIdx.x * stride + blockIdx.y * dim;
    const float* angles = table + (u64)positions[blockIdx.x] * dim;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        const float c = angles[i], s = sign * angles[half + i];
        const float a = load(head[i]), b = load(head[half + i]);
        head[i] = store<T>(a * c - b * s);
        head[half + i] = store<T>(b * c + a * s);
    }
}

// out = activation(gate) · up; gate and up are the halves of a row. Grid: (columns / 256, rows).
extern "C" __global__ void gate(T* out, int out_stride, const T* both, int stride, int width, int kind) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= width) return;
    const T* row = both + (u64)blockIdx.y * stride;
    float slope;
    out[(u64)blockIdx.y * out_stride + i] = store<T>(activation(load(row[i]), kind, &slope) * load(row[width + i]));
}

extern "C" __global__ void gate_backward(T* d_gate, int gate_stride, T* d_up, int up_stride, const T* slope, int slope_stride,
                                         const T* both, int stride, int width, int kind) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= width) return;
    const u64 row = blockIdx.y;
    float derivative;
    const float g = load(both[row * stride + i]), u = load(both[row * stride + width + i]);
    const float a = activation(g, kind, &derivative), dy = load(slope[row * slope_stride + i]);
    d_gate[row * gate_stride + i] = store<T>(dy * u * derivative);
    d_up[row * up_stride + i] = store<T>(dy * a);
}

// Puts f32 values [rows, columns] at `out` as T. Grid: (columns / 256, rows).
extern "C" __global__ void place(T* out, int stride, const float* values, int columns) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < columns) out[(u64)blockIdx.y * stride + i] = store<T>(values[(u64)blockIdx.y * columns + i]);
}

// Puts values [rows, columns] of T at `out` as f32, side by side. Grid: (columns / 256, rows).
extern "C" __global__ void widen(float* out, const T* values, int stride, int columns) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < columns) out[(u64)blockIdx.y * columns + i] = load(values[(u64)blockIdx.y * stride + i]);
}

// out = weight + added, rounded once. Grid: (columns / 256, rows).
extern "C" __global__ void merge(T* out, int out_stride, const T* weight, int stride, const float* added, int columns) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= columns) return;
    const u64 row = blockIdx.y;
    out[row * out_stride + i] = store<T>(load(weight[row * stride + i]) + (added ? added[row * columns + i] : 0.0f));
}

// Normal values of this deviation, keyed by seed and place (Box and Muller over a 64-bit mixer): for models of random weights.
// Grid: (columns / 256, rows).
extern "C" __global__ void noise(T* out, int stride, int columns, u32 seed, float deviation) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= columns) return;
    u64 x = ((u64)seed << 40) + (u64)blockIdx.y * columns + i + 1;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    x ^= x >> 31;
    const float radius = ((u32)(x >> 32) + 0.5f) * 2.3283064e-10f, angle = (u32)x * 2.3283064e-10f;
    out[(u64)blockIdx.y * stride + i] = store<T>(deviation * sqrtf(-2.0f * logf(radius)) * cosf(6.2831853f * angle));
}

// ---- The same eight values a thread, for rows that begin at multiples of 16 bytes and are multiples of eight long.

#define CHUNKS 4 // of eight in a thread: rows of at most 8 · 256 · CHUNKS

// As add_norm; a row stays in registers.
extern "C" __global__ void add_norm_8(const float* hidden, const u32* rows, const T* added, int added_stride, float* hidden_out,
                                      const float* weight, float offset, float eps, int width, T* out1, int stride1, T* out2,
                                      int stride2, T* out3, int stride3, float* inverse_out) {
    const u64 row = blockIdx.x, source = rows ? rows[row] : row;
    const float* from = hidden + source * width;
    float x[CHUNKS][8], squares = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
        const int i = (c * 256 + threadIdx.x) * 8;
        if (i >= width) break;
        load8(x[c], from + i);
        if (added) {
            float more[8];
            load8(more, added + source * added_stride + i);
#pragma unroll
            for (int j = 0; j < 8; ++j) x[c][j] += more[j];
        }
        if (hidden_out) store8(hidden_out + row * width + i, x[c]);
#pragma unroll
        for (int j = 0; j < 8; ++j) squares += x[c][j] * x[c][j];
    }
    const float inverse = 1.0f / sqrtf(block_sum(squares) / width + eps);
    if (inverse_out && threadIdx.x == 0) inverse_out[row] = inverse;
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
        const int i = (c * 256 + threadIdx.x) * 8;
        if (i >= width) break;
        float w[8];
        load8(w, weight + i);
#pragma unroll
        for (int j = 0; j < 8; ++j) x[c][j] *= inverse * (w[j] + offset);
        store8(out1 + row * stride1 + i, x[c]);
        if (out2) store8(out2 + row * stride2 + i, x[c]);
        if (out3) store8(out3 + row * stride3 + i, x[c]);
    }
}

// As norm_backward.
extern "C" __global__ void norm_backward_8(float* gradient, T* out, int out_stride, const T* slope, int slope_stride,
                                           const float* hidden, const u32* rows, const float* inverse, const float* weight,
                                           float offset, int width, int fresh) {
    const u64 row = blockIdx.x, source = rows ? rows[row] : row;
    const float r = inverse[row];
    float x[CHUNKS][8], dy[CHUNKS][8], dot = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
        const int i = (c * 256 + threadIdx.x) * 8;
        if (i >= width) break;
        float w[8];
        load8(w, weight + i);
        load8(x[c], hidden + source * width + i);
        load8(dy[c], slope + row * slope_stride + i);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            dy[c][j] *= w[j] + offset;
            dot += dy[c][j] * x[c][j];
        }
    }
    dot = block_sum(dot) * r * r / width;
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
        const int i = (c * 256 + threadIdx.x) * 8;
        if (i >= width) break;
        float sum[8] = {};
        if (!fresh) load8(sum, gradient + row * width + i);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[j] += r * (dy[c][j] - x[c][j] * dot);
        store8(gradient + row * width + i, sum);
        if (out) store8(out + row * out_stride + i, sum);
    }
}

// As gate. Grid: (columns / 2048, rows).
extern "C" __global__ void gate_8(T* out, int out_stride, const T* both, int stride, int width, int kind) {
    const int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i >= width) return;
    const T* row = both + (u64)blockIdx.y * stride;
    float g[8], u[8], slope;
    load8(g, row + i);
    load8(u, row + width + i);
#pragma unroll
    for (int j = 0; j < 8; ++j) g[j] = activation(g[j], kind, &slope) * u[j];
    store8(out + (u64)blockIdx.y * out_stride + i, g);
}

// As gate_backward. Grid: (columns / 2048, rows).
extern "C" __global__ void gate_backward_8(T* d_gate, int gate_stride, T* d_up, int up_stride, const T* slope, int slope_stride,
                                           const T* both, int stride, int width, int kind) {
    const int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i >= width) return;
    const u64 row = blockIdx.y;
    float g[8], u[8], dy[8], derivative;
    load8(g, both + row * stride + i);
    load8(u, both + row * stride + width + i);
    load8(dy, slope + row * slope_stride + i);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        const float a = activation(g[j], kind, &derivative);
        g[j] = dy[j] * u[j] * derivative;
        u[j] = dy[j] * a;
    }
    store8(d_gate + row * gate_stride + i, g);
    store8(d_up + row * up_stride + i, u);
}
