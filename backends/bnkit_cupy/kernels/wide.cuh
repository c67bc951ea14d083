// Arithmetic in double for a whole tile, if one of its channels needs it (lines.cuh).
//
// The thread-to-data map is as in tile.cuh, one vector at a time, so the bits of a ReLU keep their places. The elements
// are read from memory, also in kernels that keep them on the chip. All threads of the block must call these functions.
// A forward and its backward choose the same tiles and compute the same values, so the ReLU is active at the same
// elements in both. Other tiles pay with one branch. Tried and dropped: a power of two for each channel. It needs a
// product for every element of every tile, and a register for each of a thread's channels.
#pragma once

#include "backward.cuh"
#include "forward.cuh"

namespace bnkit {

// y before the residual and the ReLU.
__device__ inline double wide_value(const WideLines& lines, int column, double distance) {
    return multiply_add(distance * lines.first[column], lines.second[column], lines.beta[column]);
}

template <typename T, int V, bool runs>
__device__ void put_wide_forward(const ForwardArrays<T>& to, const WideLines& lines, const T* x,
                                 const Tile<V, runs>& tile) {
    using A = Wide<T>;
    Cursor<V, runs> cursor(tile);
#pragma unroll 1
    for (index at = tile.first; at < tile.last; at += blockDim.y) {
        const bool valid = tile.has(at, 0);
        bool flags[V];
#pragma unroll
        for (int v = 0; v < V; ++v) {
            flags[v] = false;
            if (!valid) continue;
            const int column = tile.column() + (runs ? 0 : v);
            const index element = cursor.element + v;
            double value = wide_value(lines, column, static_cast<double>(widen(x[element])) - lines.mean[column]);
            if (to.residual) value += static_cast<double>(widen(to.residual[element]));
            const A y = static_cast<A>(value);
            flags[v] = y > rounds_to_zero<T>;
            to.y[element] = narrow<T>(to.relu && y < A(0) ? A(0) : y);  // NaN stays
        }
        if (to.active) store_flags<V>(to.active, tile.words(at, 0), flags);
        cursor.advance();
    }
}

// Calls use(v, column, x_hat, gradient, element); x_hat is 0 if x is null.
template <typename T, int V, bool runs, typename Use>
__device__ void for_each_wide_gradient(int gate, const unsigned* active, const WideLines& lines, const T* x,
                                       const T* dy, const Tile<V, runs>& tile, Use use) {
    Cursor<V, runs> cursor(tile);
#pragma unroll 1
    for (index at = tile.first; at < tile.last; at += blockDim.y) {
        const bool valid = tile.has(at, 0);
        bool flags[V];
        if (gate == by_bits) load_flags<V>(active, tile.words(at, 0), flags);
#pragma unroll
        for (int v = 0; v < V; ++v) {
            if (!valid) continue;
            const int column = tile.column() + (runs ? 0 : v);
            const index element = cursor.element + v;
            const double distance = x ? static_cast<double>(widen(x[element])) - lines.mean[column] : 0;
            double gradient = static_cast<double>(widen(dy[element]));
            if (gate == by_bits && !flags[v]) gradient = 0;
            const Wide<T> value = static_cast<Wide<T>>(wide_value(lines, column, distance));
            if (gate == by_x && !(value > rounds_to_zero<T>)) gradient = 0;
            use(v, column, distance * lines.rstd[column], gradient, element);
        }
        cursor.advance();
    }
}

// The sums of dy and dy * x_hat.
template <typename T, int V, bool runs>
__device__ void add_wide_gradients(Sums<Wide<T>, V, Tile<V, runs>::owned>& sums, int gate, const unsigned* active,
                                   const WideLines& lines, const T* x, const T* dy, const Tile<V, runs>& tile) {
    const auto add = [&](int v, int, double x_hat, double gradient, index) {
        sums.first[runs ? 0 : v] += gradient;
        sums.second[runs ? 0 : v] += gradient * x_hat;
    };
    for_each_wide_gradient(gate, active, lines, x, dy, tile, add);
}

template <typename T, int V, bool runs>
__device__ void put_wide_backward(const BackwardArrays<T>& to, const GradientLines<Wide<T>>& lines, const T* x,
                                  const T* dy, const Tile<V, runs>& tile) {
    using A = Wide<T>;
    const auto put = [&](int, int column, double x_hat, double gradient, index element) {
        const double through_statistics = to.train ? lines.mean_dy[column] + x_hat * lines.mean_dy_x_hat[column] : 0;
        const double dx = (gradient - through_statistics) * lines.wide.first[column] * lines.wide.second[column];
        if (to.dresidual) to.dresidual[element] = narrow<T>(static_cast<A>(gradient));
        to.dx[element] = narrow<T>(static_cast<A>(dx));
    };
    for_each_wide_gradient(to.gate, to.active, lines.wide, x, dy, tile, put);
}

}  // namespace bnkit
