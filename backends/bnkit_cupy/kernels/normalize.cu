// normalize: y = relu((x - mean) * rstd * gamma + beta + residual), with known statistics.
//
// It is the second read of a training forward, and a whole inference. Grid: splits * tiles blocks (tile.cuh), in
// reverse order, because the second-level cache still holds the end of the tensor from the first read.
// Reads x and the residual if there is one, and writes y, by 16 bytes if the shape allows it. If the caller keeps the
// ReLU's bits, it also writes one bit for each element.
#include "wide.cuh"

namespace bnkit {

template <typename T, int V, bool runs>
__global__ void __launch_bounds__(threads, V == 1 ? 3 : 2)
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
    bool wide = false;
    if (thread < tile.width()) {
        const bool there = thread < tile.columns;  // the other lines are read, but not used
        const index channel = tile.channel + (there ? thread : 0);
        const double value = Statistic{spread, wide_spread}[channel];
        const double rstd = spread_is_variance ? 1 / sqrt(value + eps) : value;
        wide = !set_affine(shared, thread, channel, Statistic{mean, wide_mean}[channel], rstd, gamma, beta);
    }
    const ForwardArrays<T> to{residual, y, active, relu, aligned != 0};
    if (__syncthreads_or(wide)) return put_wide_forward(to, shared.wide, x, tile);
    const ThreadLines<A, Walk::owned> lines(shared, tile.column());
    Batches<T, V, runs, 2> batch(tile, {x, residual}, aligned);
    while (batch.next()) {
#pragma unroll
        for (int u = 0; u < batch.size; ++u) {
            const auto& [vector, added] = batch.of[u];
            put_forward<T, V, runs>(to, lines, vector, added, batch.elements[u], tile, batch.at, u);
        }
    }
}

}  // namespace bnkit
