// The thread-to-data map of a view (groups, rows, channels, inner).
//
// Runs (inner > 1, as NCHW): a tile is one channel. Its positions are the vectors of V elements of its rows * inner.
// The threads have consecutive positions.
// Columns (inner == 1, as (N, D) and NHWC): a tile is blockDim.x * V neighbouring columns. Its positions are the rows,
// and thread (x, y) has V columns of every blockDim.y-th row, so that a warp reads whole segments of 128 bytes.
//
// The positions of a tile are divided into `splits` parts of `chunk`, one for each block. V depends on the shape only:
// unaligned arrays are read by single elements, so no result depends on the alignment.
#pragma once

#include "device.cuh"

namespace bnkit {

constexpr int most_columns = 64;  // of a tile
// Loads of one array that a thread has in flight. With more than 16 elements the kernels spill.
template <int V> constexpr int in_flight = V == 8 ? 2 : 4;

struct Shape {
    index groups, rows, channels, inner;

    __device__ index total_channels() const { return groups * channels; }
    __device__ double count() const { return static_cast<double>(rows) * static_cast<double>(inner); }

    // Element i of the rows * inner of a channel; `channel` counts through all groups.
    __device__ index element(index channel, index i) const {
        const index row = channel / channels * rows + i / inner;
        return (row * channels + channel % channels) * inner + i % inner;
    }
};

template <int V, bool runs> class Tile {
  public:
    // Channels of the thread's V elements.
    static constexpr int owned = runs ? 1 : V;

    const Shape& shape;
    index number, split, channel;  // channel: the first of the tile, counted through all groups
    index positions, first, last;  // first, last: the bounds of this block's part
    int columns;                   // the channels of the tile, at most `width`

    __device__ Tile(const Shape& view, index block, index splits, index chunk) : shape(view) {
        number = block / splits;
        split = block % splits;
        const index tiles = (shape.channels + width() - 1) / width();  // of a group
        const index start = number % tiles * width();
        channel = number / tiles * shape.channels + start;
        columns = static_cast<int>(min(static_cast<index>(width()), shape.channels - start));
        positions = runs ? shape.rows * (shape.inner / V) : shape.rows;
        first = split * chunk;
        last = min(first + chunk, positions);
    }

    // Channels of a full tile, a power of two.
    __device__ static int width() { return runs ? 1 : static_cast<int>(blockDim.x) * V; }

    // The first of the thread's channels, within the tile.
    __device__ int column() const { return runs ? 0 : static_cast<int>(threadIdx.x) * V; }

    // Whether the thread has elements `step` positions of all threads after `at`.
    __device__ bool has(index at, int step) const {
        return column() < columns && at + step * static_cast<index>(blockDim.y) + threadIdx.y < last;
    }

    // The index of the V words with a warp's flags, V bits for each thread; -1 if the warp is past the end.
    __device__ index words(index at, int step) const {
        const int shift = __ffs(warp_threads) - (runs ? 1 : __ffs(blockDim.x)), rows = 1 << shift;  // of a warp
        const index mine = at + step * static_cast<index>(blockDim.y) + thread_number() / warp_threads * rows;
        return mine < last ? (number * ((positions + rows - 1) >> shift) + (mine >> shift)) * V : -1;
    }
};

// The thread's current element, and the step to its next position without a division.
template <int V, bool runs> class Cursor {
  public:
    index element;

    __device__ explicit Cursor(const Tile<V, runs>& tile) {
        const Shape& s = tile.shape;
        const index at = tile.first + threadIdx.y, height = blockDim.y;
        line_ = runs ? s.inner / V : 1;
        place_ = runs ? at % line_ : 0;
        step_place_ = runs ? height % line_ : 0;
        carry_ = (s.channels - 1) * s.inner;
        const index row = tile.channel / s.channels * s.rows + at / line_;
        element = (row * s.channels + tile.channel % s.channels) * s.inner + place_ * V + tile.column();
        step_ = height / line_ * s.channels * s.inner + step_place_ * V;
    }

    __device__ void advance() {
        element += step_;
        if (!runs) return;
        place_ += step_place_;
        if (place_ < line_) return;
        place_ -= line_;
        element += carry_;
    }

  private:
    index line_, place_, step_place_, step_, carry_;
};

// A block's part of a tile, in batches of positions whose loads are in flight together:
//
//     Batches<T, V, runs, 2> batch(tile, {x, dy}, aligned);
//     while (batch.next()) { each of batch.of[u], in all threads of the warp }
template <typename T, int V, bool runs, int arrays> class Batches {
  public:
    static constexpr int size = in_flight<V>;

    Vector<T, V> of[size][arrays];  // 0 if there are no elements, or no array
    index elements[size];           // their places
    bool valid[size];
    index at;  // the position of the first, in the tile

    __device__ Batches(const Tile<V, runs>& tile, const T* const (&from)[arrays], bool aligned)
        : tile_(tile), cursor_(tile), aligned_(aligned) {
        at = tile.first - size * static_cast<index>(blockDim.y);
#pragma unroll
        for (int a = 0; a < arrays; ++a) from_[a] = from[a];
    }

    __device__ __forceinline__ bool next() {
        at += size * static_cast<index>(blockDim.y);
        if (at >= tile_.last) return false;
#pragma unroll
        for (int u = 0; u < size; ++u) {
            valid[u] = tile_.has(at, u);
            elements[u] = cursor_.element;
#pragma unroll
            for (int a = 0; a < arrays; ++a) {
                of[u][a] = {};
                if (valid[u] && from_[a]) of[u][a] = load<T, V>(from_[a] + elements[u], aligned_);
            }
            cursor_.advance();
        }
        return true;
    }

  private:
    const Tile<V, runs>& tile_;
    Cursor<V, runs> cursor_;
    const T* from_[arrays];
    bool aligned_;
};

// Writes the words of a warp's flags, V bits for each thread.
template <int V> __device__ void store_flags(unsigned* active, index words, const bool (&flags)[V]) {
    const int lane = thread_number() % warp_threads;
    unsigned mine = 0;
#pragma unroll
    for (int v = 0; v < V; ++v) {
        const unsigned word = __ballot_sync(whole_warp, flags[v]);
        if (lane == v) mine = word;
    }
    if (lane < V && words >= 0) active[words + lane] = mine;
}

template <int V> __device__ void load_flags(const unsigned* active, index words, bool (&flags)[V]) {
    const int lane = thread_number() % warp_threads;
    const unsigned mine = lane < V && words >= 0 ? active[words + lane] : 0;
#pragma unroll
    for (int v = 0; v < V; ++v) flags[v] = __shfl_sync(whole_warp, mine, v) >> lane & 1u;
}

}  // namespace bnkit
