// train: moments and normalize in one kernel that reads x once.
//
// Each thread keeps `held` vectors of its part of a tile (tile.cuh) in registers, from the sums to the results; splits
// * tiles blocks. With one split a block has all of its channels' elements and waits for nobody. With several, all
// blocks of a tile wait for each other and add up the same sums in the same order, so their bits agree: a cooperative
// launch, since all of them have to be resident. Reads x, the residual where there is one, and writes y, 16 bytes at a
// time where the shape allows, and one bit an element where bits are kept: 2 transfers of the tensor, where two reads
// cost 3.
#include "forward.cuh"
#include "moments.cuh"

namespace bnkit {

template <typename T, int V, bool runs, int held>
__global__ void __launch_bounds__(threads, 1)
    train(const T* __restrict__ x, const T* __restrict__ residual, T* __restrict__ y, unsigned* active,
          double* statistics, double* partials, unsigned* arrived, const Wide<T>* gamma, const Wide<T>* beta,
          Wide<T>* running_mean, Wide<T>* running_var, double decay, double correction, double eps, int relu,
          index groups, index rows, index channels, index inner, index splits, index chunk, int aligned) {
    static_assert(held <= short_sum, "a thread's elements are added up in float");
    using A = Wide<T>;
    using Walk = Tile<V, runs>;
    __shared__ MomentsMemory<A> memory;
    __shared__ Lines<A> shared;
    const Shape shape{groups, rows, channels, inner};
    const Walk tile(shape, blockIdx.x, splits, chunk);
    const int thread = thread_number();
    Vector<T, V> values[held] = {};
    Cursor<V, runs> cursor(tile);
#pragma unroll
    for (int i = 0; i < held; ++i) {
        if (tile.has(tile.first, i)) values[i] = load<T, V>(x + cursor.element, aligned);
        cursor.advance();
    }
    set_near_means(memory, tile, x);
    A k[Walk::owned];
#pragma unroll
    for (int c = 0; c < Walk::owned; ++c) k[c] = tile.column() < tile.columns ? memory.k[tile.column() + c] : A(0);
    Sums<A, V, Walk::owned> sums;
#pragma unroll
    for (int i = 0; i < held; ++i) {
        if (!tile.has(tile.first, i)) continue;
#pragma unroll
        for (int v = 0; v < V; ++v) {
            const A away = widen(values[i].of[v]) - k[runs ? 0 : v];
            sums.add(v, away, away * away);
        }
    }
    sums.flush();
    add_over_block(memory.sums, tile, sums);
    if (splits > 1) share_over_splits(memory.sums, tile, partials, arrived, splits);
    set_moments(memory, tile, x, eps);
    if (tile.split == 0) {
        store_moments(memory, tile, Statistics(statistics, shape.total_channels()),
                      Running<A>{running_mean, running_var, decay, correction});
    }
    if (thread < tile.width()) {
        const int column = thread < tile.columns ? thread : 0;
        set_affine(shared, thread, tile.channel + column, memory.mean[column], memory.rstd[column], gamma, beta);
    }
    __syncthreads();
    const OwnLines<A, Walk::owned> lines(shared, tile.column());
    const ForwardArrays<T> to{residual, y, active, relu, aligned != 0};
    Cursor<V, runs> again(tile);
#pragma unroll
    for (int i = 0; i < held; ++i) {
        const bool valid = tile.has(tile.first, i);
        Vector<T, V> added = {};
        if (valid && residual) added = load<T, V>(residual + again.element, aligned);
        put_forward<T, V, runs>(to, lines, values[i], added, again.element, tile, tile.first, i);
        again.advance();
    }
}

}  // namespace bnkit
