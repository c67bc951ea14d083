// Two sums for each channel of a tile: over a thread's elements, over the block, and over the blocks of the tile.
//
// The shape and the grid fix the order of every sum. Blocks meet only at the ticket or barrier of a tile.
#pragma once

#include "tile.cuh"

namespace bnkit {

// Additions in float before the sum continues in double. The squares of data on a coarse grid (a mean of 1e4 in
// float32) all round in the same direction if a sum is large.
constexpr int short_sum = 32;

template <typename A, int V, int owned> class Sums {
  public:
    double first[owned], second[owned];

    __device__ Sums() {
#pragma unroll
        for (int c = 0; c < owned; ++c) first[c] = second[c] = 0;
#pragma unroll
        for (int v = 0; v < V; ++v) short_first_[v] = short_second_[v] = 0;
    }

    __device__ void add(int v, A a, A b) {
        short_first_[v] += a;
        short_second_[v] += b;
    }

    // To call after `additions` additions to each v, a constant divisor of `short_sum`.
    __device__ void flush_in_time(int additions) {
        additions_ += additions;
        if (additions_ % short_sum == 0) flush();
    }

    // To call before `first` and `second` are read.
    __device__ void flush() {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            first[owned == 1 ? 0 : v] += static_cast<double>(short_first_[v]);
            second[owned == 1 ? 0 : v] += static_cast<double>(short_second_[v]);
            short_first_[v] = short_second_[v] = 0;
        }
    }

  private:
    A short_first_[V], short_second_[V];
    int additions_ = 0;
};

struct SumsMemory {
    double warp[2][warps][most_columns];
    double total[2][most_columns];  // a column belongs to the thread of its number
    double strand[2][threads];
    bool last;
};

// Sets memory.total to the block's sums for each column.
template <typename A, int V, bool runs>
__device__ void add_over_block(SumsMemory& memory, const Tile<V, runs>& tile, Sums<A, V, Tile<V, runs>::owned>& sums) {
    constexpr int owned = Tile<V, runs>::owned;
    const int thread = thread_number(), lane = thread % warp_threads, width = tile.width();
#pragma unroll
    for (int c = 0; c < owned; ++c) {
        for (int lane_offset = blockDim.x; lane_offset < warp_threads; lane_offset *= 2) {  // over the rows of the warp
            sums.first[c] += __shfl_xor_sync(whole_warp, sums.first[c], lane_offset);
            sums.second[c] += __shfl_xor_sync(whole_warp, sums.second[c], lane_offset);
        }
        if (lane < static_cast<int>(blockDim.x)) {
            memory.warp[0][thread / warp_threads][tile.column() + c] = sums.first[c];
            memory.warp[1][thread / warp_threads][tile.column() + c] = sums.second[c];
        }
    }
    __syncthreads();
    if (thread < width) {
        for (int s = 0; s < 2; ++s) {
            double total = 0;
            for (int w = 0; w < warps; ++w) total += memory.warp[s][w][thread];
            memory.total[s][thread] = total;
        }
    }
}

// The index of a tile's column in `partials`, (splits, 2, groups * channels).
template <int V, bool runs>
__device__ index partial(const Tile<V, runs>& tile, index split, int s, int column) {
    return (split * 2 + s) * tile.shape.total_channels() + tile.channel + column;
}

template <int V, bool runs>
__device__ void store_partials(const SumsMemory& memory, const Tile<V, runs>& tile, double* partials) {
    const int thread = thread_number();
    if (thread >= tile.columns) return;
    for (int s = 0; s < 2; ++s) partials[partial(tile, tile.split, s, thread)] = memory.total[s][thread];
}

// Sets memory.total to the sums over all blocks of the tile, with the same bits in every block.
template <int V, bool runs>
__device__ void add_partials(SumsMemory& memory, const Tile<V, runs>& tile, const double* partials, index splits) {
    const int thread = thread_number(), width = tile.width();
    const int column = thread % width, strands = threads / width;
    for (int s = 0; s < 2; ++s) {
        double total = 0;
        if (column < tile.columns) {
            for (index i = thread / width; i < splits; i += strands) {
                total += load_fresh(partials + partial(tile, i, s, column));
            }
        }
        memory.strand[s][thread] = total;
    }
    __syncthreads();
    if (thread < width) {
        for (int s = 0; s < 2; ++s) {
            double total = 0;
            for (int i = 0; i < strands; ++i) total += memory.strand[s][i * width + thread];
            memory.total[s][thread] = total;
        }
    }
}

// Whether this block is the last of its tile; then memory.total holds the sums of the whole tile.
// tickets: one for each tile, 0 at the start of the launch.
template <int V, bool runs>
__device__ bool add_over_splits(SumsMemory& memory, const Tile<V, runs>& tile, double* partials, unsigned* tickets,
                                index splits) {
    if (splits == 1) return true;
    store_partials(memory, tile, partials);
    __syncthreads();
    if (thread_number() == 0) {
        __threadfence();  // after the barrier: the whole block's partials precede the ticket
        memory.last = atomicAdd(tickets + tile.number, 1u) == static_cast<unsigned>(splits - 1);
        __threadfence();  // before the barrier: the ticket precedes the block's reads of partials
    }
    __syncthreads();
    if (!memory.last) return false;
    add_partials(memory, tile, partials, splits);
    return true;
}

// Gives every block of the tile the same sums, in a cooperative launch.
template <int V, bool runs>
__device__ void share_over_splits(SumsMemory& memory, const Tile<V, runs>& tile, double* partials, unsigned* arrived,
                                  index splits) {
    store_partials(memory, tile, partials);
    wait_for_blocks(arrived + tile.number, static_cast<unsigned>(splits));
    add_partials(memory, tile, partials, splits);
}

}  // namespace bnkit
