// The results of a forward: y = relu((x - k) * scale + shift + residual), and the bits of the ReLU.
#pragma once

#include "lines.cuh"

namespace bnkit {

template <typename T> struct ForwardArrays {
    const T* residual;  // may be null
    T* y;               // may be x
    unsigned* active;   // may be null
    int relu;
    bool aligned;
};

// Writes y for the vector `x` at `element`, `step` positions of all threads after `at`. All threads of the warp must
// call this, also those without elements.
template <typename T, int V, bool runs>
__device__ __forceinline__ void put_forward(const ForwardArrays<T>& to,
                                            const ThreadLines<Wide<T>, Tile<V, runs>::owned>& lines,
                                            const Vector<T, V>& x, const Vector<T, V>& residual, index element,
                                            const Tile<V, runs>& tile, index at, int step) {
    const bool valid = tile.has(at, step);
    using A = Wide<T>;
    Vector<T, V> y;
    bool flags[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
        const int c = runs ? 0 : v;
        A value = multiply_add(widen(x.of[v]) - lines.k[c], lines.scale[c], lines.shift[c]);
        if (to.residual) value += widen(residual.of[v]);
        flags[v] = valid && value > rounds_to_zero<T>;
        if (to.relu && value < A(0)) value = A(0);  // NaN stays
        y.of[v] = narrow<T>(value);
    }
    if (valid) store(to.y + element, y, to.aligned);
    if (to.active) store_flags<V>(to.active, tile.words(at, step), flags);
}

}  // namespace bnkit
