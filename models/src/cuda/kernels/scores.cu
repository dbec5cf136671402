// Log-probabilities of given tokens under rows of logits (f32).

// logprob and entropy of each row's token under softmax(logits · inverse), nats; lse is kept for the way back. Grid: rows, block 1024.
extern "C" __global__ void score(float* logprobs, float* entropies, float* lse, const float* logits, const u32* tokens,
                                 int vocabulary, float inverse) {
    const u64 row = blockIdx.x;
    const float* x = logits + row * vocabulary;
    float most = __int_as_float(0xff800000);
    for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) most = fmaxf(most, x[i] * inverse);
    most = block_max(most);
    float total = 0.0f, weighted = 0.0f;
    for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) {
        const float y = x[i] * inverse - most, e = expf(y);
        total += e;
        weighted += e * y;
    }
    total = block_sum(total);
    weighted = block_sum(weighted);
    if (threadIdx.x == 0) {
        const float log_total = logf(total);
        logprobs[row] = x[tokens[row]] * inverse - most - log_total;
        entropies[row] = log_total - weighted / total;
        lse[row] = most + log_total;
    }
}

// d logits = slope · inverse · ([token] − softmax), as T. Grid: (vocabulary / 1024, rows), block 256.
extern "C" __global__ void score_backward(T* out, int stride, const float* logits, const float* lse, const u32* tokens,
                                          const float* slopes, int vocabulary, float inverse) {
    const u64 row = blockIdx.y;
    const float slope = slopes[row] * inverse, total = lse[row];
    const int token = tokens[row];
    for (int part = 0; part < 4; ++part) {
        const int i = blockIdx.x * 1024 + part * 256 + threadIdx.x;
        if (i >= vocabulary) return;
        const float p = expf(logits[row * vocabulary + i] * inverse - total);
        out[row * stride + i] = store<T>(slope * ((i == token ? 1.0f : 0.0f) - p));
    }
}
