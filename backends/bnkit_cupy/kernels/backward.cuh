// A backward's work on one vector of x and dy: the gradient behind the ReLU, its sums, and the results.
#pragma once

#include "lines.cuh"
#include "sums.cuh"

namespace bnkit {

// How the backward knows where the ReLU was active: there was no ReLU, from x, or from the forward's bits.
enum Gate : int { open = 0, by_x = 1, by_bits = 2 };

template <typename T> struct BackwardArrays {
    const unsigned* active;  // for by_bits
    T* dx;                   // may be dy
    T* dresidual;            // may be null
    int gate, train;
    bool aligned;
};

// x - k, and dy where the ReLU was active. All threads of the warp must call this.
template <typename T, int V, bool runs>
__device__ __forceinline__ void get_gradient(int gate, const unsigned* active,
                                             const ThreadLines<Wide<T>, Tile<V, runs>::owned>& lines,
                                             const Vector<T, V>& x, const Vector<T, V>& dy,
                                             const Tile<V, runs>& tile, index at, int step,
                                             Wide<T> (&distance)[V], Wide<T> (&gradient)[V]) {
    using A = Wide<T>;
    bool flags[V];
    if (gate == by_bits) load_flags<V>(active, tile.words(at, step), flags);
#pragma unroll
    for (int v = 0; v < V; ++v) {
        const int c = runs ? 0 : v;
        distance[v] = widen(x.of[v]) - lines.k[c];
        gradient[v] = widen(dy.of[v]);
        if (gate == by_bits && !flags[v]) gradient[v] = A(0);
        const A value = multiply_add(distance[v], lines.scale[c], lines.shift[c]);
        if (gate == by_x && !(value > rounds_to_zero<T>)) gradient[v] = A(0);
    }
}

template <typename T, int V, bool runs>
__device__ __forceinline__ void put_backward(const BackwardArrays<T>& to,
                                             const ThreadGradientLines<Wide<T>, Tile<V, runs>::owned>& lines,
                                             const Wide<T> (&distance)[V], const Wide<T> (&gradient)[V],
                                             index element) {
    using A = Wide<T>;
    Vector<T, V> dx, dresidual;
#pragma unroll
    for (int v = 0; v < V; ++v) {
        const int c = runs ? 0 : v;
        const A through_statistics = to.train ? multiply_add(distance[v], lines.slope[c], lines.offset[c]) : A(0);
        dx.of[v] = narrow<T>((gradient[v] + through_statistics) * lines.scale[c]);
        dresidual.of[v] = narrow<T>(gradient[v]);
    }
    if (to.dresidual) store(to.dresidual + element, dresidual, to.aligned);
    store(to.dx + element, dx, to.aligned);
}

// Σ dy and Σ dy * x_hat of the tile's columns, from the sums of dy and dy * (x - k) in memory.total.
template <typename A>
__device__ void set_gradient_sums(SumsMemory& memory, const Lines<A>& lines, int column, double mean, double rstd) {
    const double rest = mean - static_cast<double>(lines.k[column]);
    memory.total[1][column] = sum_dy_x_hat_of(rest, rstd, memory.total[0][column], memory.total[1][column]);
}

}  // namespace bnkit
