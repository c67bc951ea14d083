// backward: gradient_sums and gradient in one kernel that reads x and dy once.
//
// Grid: as in train. Each block keeps its part of x and dy on the chip, and the blocks of one tile wait for each other
// in a cooperative launch. Reads x, dy and, if the forward kept them, one bit for each element. Writes dx and, unless
// it is null, dresidual: 3 transfers of the tensor. Its predecessor, gradient_sums and then gradient, makes 5.
#include "store.cuh"
#include "wide.cuh"

namespace bnkit {

template <typename T, int V, bool runs, int held>
__global__ void __launch_bounds__(threads, resident<T, V>)
    backward(const T* dy, const T* __restrict__ x, const unsigned* __restrict__ active, const double* mean,
             const double* rstd, const Wide<T>* gamma, const Wide<T>* beta, const double* count, double* partials,
             unsigned* arrived, T* dx, T* dresidual, Wide<T>* dgamma, Wide<T>* dbeta, int gate, int train, index groups,
             index rows, index channels, index inner, index splits, index chunk, int aligned) {
    using A = Wide<T>;
    using Walk = Tile<V, runs>;
    __shared__ SumsMemory memory;
    __shared__ GradientLines<A> shared;
    const Shape shape{groups, rows, channels, inner};
    const Walk tile(shape, blockIdx.x, splits, chunk);
    const int thread = thread_number();
    const Store<T, V, runs, 2, held> kept(tile, {x, dy}, aligned);
    const index channel = tile.channel + (thread < tile.columns ? thread : 0);
    bool wide = false;
    if (thread < tile.width()) {
        wide = !set_affine(shared, thread, channel, mean[channel], rstd[channel], gamma, beta);
    }
    wide = __syncthreads_or(wide);
    const BackwardArrays<T> to{active, dx, dresidual, gate, train, aligned != 0};
    Sums<A, V, Walk::owned> sums;
    const auto finish_sums = [&] {
        add_over_block(memory, tile, sums);
        if (splits > 1) share_over_splits(memory, tile, partials, arrived, splits);
        if (thread < tile.width()) {
            if (!wide) set_gradient_sums(memory, shared, thread, mean[channel], rstd[channel]);
            const double n = train && count[channel] > 0 ? count[channel] : 1, first = memory.total[0][thread];
            set_gradient(shared, thread, mean[channel], rstd[channel], n, first, memory.total[1][thread]);
            if (tile.split == 0 && thread < tile.columns) {
                dbeta[channel] = static_cast<A>(memory.total[0][thread]);
                dgamma[channel] = static_cast<A>(memory.total[1][thread]);
            }
        }
        __syncthreads();
    };
    if (wide) {  // ends here, so that the stored vectors need no registers in this branch
        add_wide_gradients(sums, gate, active, shared.wide, x, dy, tile);
        finish_sums();
        return put_wide_backward(to, shared, x, dy, tile);
    }
    {
        const ThreadLines<A, Walk::owned> lines(shared, tile.column());
        kept.for_each(nullptr, [&](int step, const auto& vectors, const Vector<T, V>&, index) {
            A distance[V], gradient[V];
            get_gradient<T, V, runs>(gate, active, lines, vectors[0], vectors[1], tile, tile.first, step, distance,
                                     gradient);
            if (!tile.has(tile.first, step)) return;
#pragma unroll
            for (int v = 0; v < V; ++v) sums.add(v, gradient[v], gradient[v] * distance[v]);
            if ((step + 1) % short_sum == 0) sums.flush();
        });
    }
    sums.flush();
    finish_sums();
    const ThreadGradientLines<A, Walk::owned> lines(shared, tile.column());
    kept.for_each(nullptr, [&](int step, const auto& vectors, const Vector<T, V>&, index element) {
        A distance[V], gradient[V];
        get_gradient<T, V, runs>(gate, active, lines, vectors[0], vectors[1], tile, tile.first, step, distance,
                                 gradient);
        if (tile.has(tile.first, step)) put_backward<T, V, runs>(to, lines, distance, gradient, element);
    });
}

}  // namespace bnkit
