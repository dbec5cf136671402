// Where targets stand among the scores of a catalogue.

// For every target: how many items of its query score higher, how many score the same and have a lower index, and how many others
// score the same, masked items left out. counts: [targets, 3], zeroed before; scores: [queries, items]; target t is item targets[t] of
// query queries[t], whose masked items are masked[starts[query]] .. masked[starts[query + 1]], each once and never the target.
// Whole numbers are added: their order does not matter. Grid: (parts, targets). Block: 256.
extern "C" __global__ void count_ranks(u32* counts, const float* scores, const u32* targets, const u32* queries, const u32* masked,
                                       const u32* starts, u32 items) {
    const u32 query = queries[blockIdx.y], target = targets[blockIdx.y];
    const float* row = scores + (u64)query * items;
    const float own = row[target];
    u32 above = 0, before = 0, tied = 0;
    const auto count = [&](u32 item, float score) {
        above += score > own;
        before += score == own && item < target;
        tied += score == own && item != target;
    };
    const u32 step = gridDim.x * 256;
    u32 item = blockIdx.x * 256 + threadIdx.x;
    if (((u64)row & 15) == 0) {
        for (; item < items / 4; item += step) {
            const float4 x = ((const float4*)row)[item];
            count(4 * item, x.x);
            count(4 * item + 1, x.y);
            count(4 * item + 2, x.z);
            count(4 * item + 3, x.w);
        }
        // What four do not fill.
        const u32 last = items / 4 * 4 + threadIdx.x;
        if (blockIdx.x == 0 && last < items) count(last, row[last]);
    } else {
        for (; item < items; item += step) count(item, row[item]);
    }
    if (blockIdx.x == 0) {
        for (u32 k = starts[query] + threadIdx.x; k < starts[query + 1]; k += 256) {
            const u32 left_out = masked[k];
            const float score = row[left_out];
            above -= score > own;
            before -= score == own && left_out < target;
            tied -= score == own;
        }
    }
    above = __reduce_add_sync(0xffffffffu, above);
    before = __reduce_add_sync(0xffffffffu, before);
    tied = __reduce_add_sync(0xffffffffu, tied);
    if ((threadIdx.x & 31) == 0) {
        u32* to = counts + 3 * blockIdx.y;
        if (above) atomicAdd(to, above);
        if (before) atomicAdd(to + 1, before);
        if (tied) atomicAdd(to + 2, tied);
    }
}
