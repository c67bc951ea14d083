// gradient: dx and the gradient of the residual, from the sums of gradient_sums.
//
// It is the second read of a backward. Grid: splits * tiles blocks (tile.cuh), in reverse order as in normalize. Reads
// dy, x and, if the forward kept them, one bit for each element. x may be null if the statistics are constants and the
// ReLU does not need it. Writes dx, and dresidual unless it is null, by 16 bytes if the shape allows it.
#include "wide.cuh"

namespace bnkit {

template <typename T, int V, bool runs>
__global__ void __launch_bounds__(threads, 2)
    gradient(const T* dy, const T* x, const unsigned* active, const double* mean, const double* rstd,
             const Wide<T>* gamma, const Wide<T>* beta, const double* count, const double* sum_dy,
             const double* sum_dy_x_hat, T* dx, T* dresidual, int gate, int train, index groups, index rows,
             index channels, index inner, index splits, index chunk, int aligned) {
    using A = Wide<T>;
    using Walk = Tile<V, runs>;
    __shared__ GradientLines<A> shared;
    const Shape shape{groups, rows, channels, inner};
    const Walk tile(shape, gridDim.x - 1 - blockIdx.x, splits, chunk);
    const int thread = thread_number();
    bool wide = false;
    if (thread < tile.width()) {
        const index channel = tile.channel + (thread < tile.columns ? thread : 0);
        wide = !set_affine(shared, thread, channel, mean[channel], rstd[channel], gamma, beta);
        const double n = train ? (count[channel] > 0 ? count[channel] : 1) : 1;
        set_gradient(shared, thread, mean[channel], rstd[channel], n, train ? sum_dy[channel] : 0,
                     train ? sum_dy_x_hat[channel] : 0);
    }
    const BackwardArrays<T> to{active, dx, dresidual, gate, train, aligned != 0};
    if (__syncthreads_or(wide)) return put_wide_backward(to, shared, x, dy, tile);
    const ThreadGradientLines<A, Walk::owned> lines(shared, tile.column());
    Batches<T, V, runs, 2> batch(tile, {x, dy}, aligned);
    while (batch.next()) {
#pragma unroll
        for (int u = 0; u < batch.size; ++u) {
            const auto& [input, upstream] = batch.of[u];
            A distance[V], gradient[V];
            get_gradient<T, V, runs>(gate, active, lines, input, upstream, tile, batch.at, u, distance, gradient);
            if (batch.valid[u]) put_backward<T, V, runs>(to, lines, distance, gradient, batch.elements[u]);
        }
    }
}

}  // namespace bnkit
