// train: moments and normalize in one kernel that reads x once.
//
// Grid: splits * tiles blocks (tile.cuh), one for each multiprocessor if they fill it. A block keeps its part of a tile
// on the chip (store.cuh) from the sums to the results. With one split a block has all elements of its channels, and
// waits for no other. With several, the blocks of a tile wait for each other, so all must be resident: a cooperative
// launch. Each adds up the same sums in the same order, so their bits agree. Reads x and the residual if there is one,
// and writes y, by 16 bytes if the shape allows it, and one bit for each element if the caller keeps the ReLU's bits: 2
// transfers of the tensor. Its predecessor, moments and then normalize, makes 3.
#include "moments.cuh"
#include "store.cuh"
#include "wide.cuh"

namespace bnkit {

template <typename T, int V, bool runs, int held>
__global__ void __launch_bounds__(threads, resident<T, V>)
    train(const T* __restrict__ x, const T* __restrict__ residual, T* __restrict__ y, unsigned* active,
          double* statistics, double* partials, unsigned* arrived, const Wide<T>* gamma, const Wide<T>* beta,
          Wide<T>* running_mean, Wide<T>* running_var, double decay, double correction, double eps, int relu,
          index groups, index rows, index channels, index inner, index splits, index chunk, int aligned) {
    using A = Wide<T>;
    using Walk = Tile<V, runs>;
    __shared__ MomentsMemory<A> memory;
    __shared__ Lines<A> shared;
    const Shape shape{groups, rows, channels, inner};
    const Walk tile(shape, blockIdx.x, splits, chunk);
    const int thread = thread_number();
    const Store<T, V, runs, 1, held> kept(tile, {x}, aligned);
    set_near_means(memory, tile, x);
    A k[Walk::owned];
#pragma unroll
    for (int c = 0; c < Walk::owned; ++c) k[c] = tile.column() < tile.columns ? memory.k[tile.column() + c] : A(0);
    Sums<A, V, Walk::owned> sums;
    kept.for_each(nullptr, [&](int step, const auto& vectors, const Vector<T, V>&, index) {
        if (!tile.has(tile.first, step)) return;
#pragma unroll
        for (int v = 0; v < V; ++v) {
            const A distance = widen(vectors[0].of[v]) - k[runs ? 0 : v];
            sums.add(v, distance, distance * distance);
        }
        if ((step + 1) % short_sum == 0) sums.flush();
    });
    sums.flush();
    add_over_block(memory.sums, tile, sums);
    if (splits > 1) share_over_splits(memory.sums, tile, partials, arrived, splits);
    set_moments(memory, tile, x, eps);
    if (tile.split == 0) {
        store_moments(memory, tile, Statistics(statistics, shape.total_channels()),
                      Running<A>{running_mean, running_var, decay, correction});
    }
    bool wide = false;
    if (thread < tile.width()) {
        const int column = thread < tile.columns ? thread : 0;
        const double mean = memory.mean[column], rstd = memory.rstd[column];
        wide = !set_affine(shared, thread, tile.channel + column, mean, rstd, gamma, beta);
    }
    const ForwardArrays<T> to{residual, y, active, relu, aligned != 0};
    if (__syncthreads_or(wide)) return put_wide_forward(to, shared.wide, x, tile);
    const ThreadLines<A, Walk::owned> lines(shared, tile.column());
    kept.for_each(residual, [&](int step, const auto& vectors, const Vector<T, V>& added, index element) {
        put_forward<T, V, runs>(to, lines, vectors[0], added, element, tile, tile.first, step);
    });
}

}  // namespace bnkit
