// normalize: y = relu((x - mean) * rstd * gamma + beta + residual), by statistics that are given.
//
// The second read of a training forward, and the whole of an inference. Grid: splits * tiles blocks (tile.cuh), the
// last first, so that of a tensor read from its start on the second-level cache still holds what is asked for next.
// Reads x, the residual where there is one, and writes y, 16 bytes at a time where the shape allows; one bit an element
// where bits are kept.
#include "forward.cuh"

namespace bnkit {

template <typename T, int V, bool runs>
__global__ void __launch_bounds__(threads, 2)
    normalize(const T* x, const T* residual, T* y, unsigned* active, const void* mean, int wide_mean,
              const void* spread, int wide_spread, int spread_is_variance, double eps, const Wide<T>* gamma,
              const Wide<T>* beta, int relu, index groups, index rows, index channels, index inner, index splits,
              index chunk, int aligned) {
    using A = Wide<T>;
    using Walk = Tile<V, runs>;
    __shared__ Lines<A> shared;
    const Shape shape{groups, rows, channels, inner};
    const Walk tile(shape, gridDim.x - 1 - blockIdx.x, splits, chunk);
    const int thread = thread_number();
    if (thread < tile.width()) {
        const bool there = thread < tile.columns;  // the lines of the others are never used, but they are read
        const index channel = tile.channel + (there ? thread : 0);
        const double given = Statistic{spread, wide_spread}[channel];
        const double rstd = spread_is_variance ? 1 / sqrt(given + eps) : given;
        set_affine(shared, thread, channel, Statistic{mean, wide_mean}[channel], rstd, gamma, beta);
    }
    __syncthreads();
    const OwnLines<A, Walk::owned> lines(shared, tile.column());
    const ForwardArrays<T> to{residual, y, active, relu, aligned != 0};
    Cursor<V, runs> cursor(tile);
    constexpr int batch_size = in_flight<V>;
    const index step = batch_size * static_cast<index>(blockDim.y);
    for (index at = tile.first; at < tile.last; at += step) {
        Vector<T, V> batch[batch_size] = {}, added[batch_size] = {};
        index elements[batch_size];
        bool valid[batch_size];
#pragma unroll
        for (int u = 0; u < batch_size; ++u) {
            valid[u] = tile.has(at, u);
            elements[u] = cursor.element;
            if (valid[u]) batch[u] = load<T, V>(x + cursor.element, aligned);
            if (valid[u] && residual) added[u] = load<T, V>(residual + cursor.element, aligned);
            cursor.advance();
        }
#pragma unroll
        for (int u = 0; u < batch_size; ++u) {
            put_forward<T, V, runs>(to, lines, batch[u], added[u], elements[u], tile, at, u);
        }
    }
}

}  // namespace bnkit
