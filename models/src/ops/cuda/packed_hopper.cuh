// What attention over packed rows for Hopper (sm_90a alone) shares: it stands after wgmma.cuh and before attention_hopper_causal.cu and
// attention_hopper_causal_keys.cu, which compute what attention.cu computes, for heads of 256 and 128.
//
// A block has two warpgroups that multiply and one that fetches for them through a ring of tiles in shared memory. Whoever has
// done with a tile says so to its barrier, so that none waits for more than what it needs. Two blocks are a cluster and work on
// neighbours, which read the same tiles: each fetches half of every tile for both, for the cache cannot feed all alone.
//
// Maps' boxes have 64 rows and 64 columns, swizzled by 128 bytes.
// A tile of COUNT rows of DIM values is DIM / 64 parts, one after the other, of 64 columns each: COUNT rows of 128 bytes.

#define ROWS 64
#define CONSUMERS 2
#define CONSUMER_WARPS (CONSUMERS * 4)
#define BLOCK ((CONSUMERS + 1) * WARPGROUP)
#define BLOCK_ROWS (CONSUMERS * ROWS)
#define CLUSTER 2
// Registers of a thread that fetches and of one that multiplies: 65536 for a block of 384.
#define FETCHING 40
#define MULTIPLYING 232

// ---- products over tiles

// c = 64 rows of tile a (of A_COUNT) times the rows of tile b, over DIM.
template <int DIM, int A_COUNT, int HELD>
__device__ __forceinline__ void rows_by_rows(float (&c)[HELD], u32 a, u32 b) {
    constexpr int B_COUNT = HELD * 2;
    u64 a_words = describe(a), b_words = describe(b);
    #pragma unroll
    for (int k = 0; k < DIM / 16; k++) {
        multiply<0>(c, a_words + ((k >> 2) * A_COUNT * 128 + (k & 3) * 32) / 16, b_words + ((k >> 2) * B_COUNT * 128 + (k & 3) * 32) / 16, k > 0);
    }
}

// c += p (64 × 16 · N) times the rows of tile b, which has DIM = 2 · HELD columns.
template <int N, int HELD>
__device__ __forceinline__ void scores_by_rows(float (&c)[HELD], const u32 (&p)[N][4], u32 b) {
    u64 b_words = describe(b, N * 16 * 128);
    #pragma unroll
    for (int k = 0; k < N; k++) multiply<1>(c, p[k], b_words + k * 128, 1);
}

// ---- the warpgroup that fetches

// A place in a ring of SLOTS tiles, and the parity of the phase in which it is filled.
template <int SLOTS>
struct Place {
    int slot = 0, parity = 0;
    __device__ __forceinline__ void next() {
        if (++slot == SLOTS) {
            slot = 0;
            parity ^= 1;
        }
    }
};

// The barriers of a ring, and of what a block holds meanwhile: the threads that fetch announce, the warps that multiply release,
// a tile of the ring to both blocks.
template <int SLOTS>
__device__ __forceinline__ void start_ring(u32 full, u32 empty, int announcing) {
    for (int i = 0; i < SLOTS; i++) {
        start_barrier(full + i * 8, announcing);
        start_barrier(empty + i * 8, CLUSTER * CONSUMER_WARPS);
    }
}

__device__ __forceinline__ int rank_in_pair() {
    int rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// After barriers were made, and before a block leaves, which it may not as long as the other one arrives at them or copies to it.
__device__ __forceinline__ void meet() {
    __syncwarp();
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    meet_pair();
}

// What was fetched row by row has come, and products may read it.
__device__ __forceinline__ void await_rows(u32 full, int parity) {
    await(full, parity);
    copies_to_products();
}

// A warp has read what it wanted: of what its block holds, or of a tile of the ring.
__device__ __forceinline__ void release(u32 empty) {
    __syncwarp();
    if ((threadIdx.x & 31) == 0) arrive(empty);
}

__device__ __forceinline__ void release_tile(u32 empty) {
    __syncwarp();
    if ((threadIdx.x & 31) < CLUSTER) arrive_at(empty, threadIdx.x & 31);
}

// One thread asks for this block's share of a tile of COUNT rows.
template <int DIM, int COUNT>
__device__ __forceinline__ void fetch_tile(u32 tile, const Map& of, int head, int row, u32 full) {
    constexpr int SHARE = DIM / 64 / CLUSTER;
    expect_bytes(full, COUNT * DIM * 2);
    int first = rank_in_pair() * SHARE;
    #pragma unroll
    for (int i = 0; i < SHARE; i++) {
        #pragma unroll
        for (int j = 0; j < COUNT; j += 64) {
            fetch_for_both(tile + (first + i) * COUNT * 128 + j * 128, &of, head * DIM + (first + i) * 64, row + j, full);
        }
    }
}

// Asks for a tile of COUNT rows; row(i) is where row i stands, or null where it is to be zeros. By a warpgroup.
template <int DIM, int COUNT, class F>
__device__ __forceinline__ void fetch(u32 tile, F row) {
    constexpr int PIECES = DIM / 8, ROUND = WARPGROUP / PIECES;
    int first = (threadIdx.x & 127) / PIECES, piece = threadIdx.x % PIECES;
    u32 to = tile + (piece >> 3) * COUNT * 128 + tile_offset<64>(first, piece & 7);
    #pragma unroll 4  // all at once would take more registers than there are
    for (int i = 0; i < COUNT / ROUND; i++) {
        const bf16* from = row(first + i * ROUND);
        copy16((to ^ (((i * ROUND) & 7) << 4)) + i * ROUND * 128, from + piece * 8, from != nullptr);
    }
}

// Rows of x from row `first` on, `left` of them.
template <int DIM, int COUNT>
__device__ __forceinline__ void fetch_rows(u32 tile, const bf16* x, int stride, i64 first, int left) {
    const bf16* from = x + first * stride;
    fetch<DIM, COUNT>(tile, [&](int i) { return i < left ? from + (i64)i * stride : nullptr; });
}

// ---- what comes out

// Writes half of a warp's 16 rows of a product, times `factor`, to the lane's row at `to`, or not where that is null: four lanes
// exchange what they hold of a row, so that each has 16 bytes in a row.
template <int HELD>
__device__ __forceinline__ void write_row(bf16* to, const float (&c)[HELD], int half, float factor) {
    int lane = threadIdx.x & 3;
    #pragma unroll
    for (int n = 0; n < HELD / 4; n += 4) {
        u32 w[4];
        #pragma unroll
        for (int i = 0; i < 4; i++) w[i] = pack_bf16(c[(n + i) * 4 + half * 2] * factor, c[(n + i) * 4 + half * 2 + 1] * factor);
        bool odd = lane & 1, high = lane & 2;
        u32 first = __shfl_xor_sync(FULL_MASK, odd ? w[0] : w[1], 1), second = __shfl_xor_sync(FULL_MASK, odd ? w[2] : w[3], 1);
        u32 a = odd ? first : w[0], b = odd ? w[1] : first, c = odd ? second : w[2], d = odd ? w[3] : second;
        u32 third = __shfl_xor_sync(FULL_MASK, high ? a : c, 2), fourth = __shfl_xor_sync(FULL_MASK, high ? b : d, 2);
        if (to) *(uint4*)(to + (n + lane) * 8) = high ? make_uint4(third, fourth, c, d) : make_uint4(a, b, third, fourth);
    }
}

