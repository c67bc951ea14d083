// moments: mean, sum of squared distances and 1 / sqrt(var + eps) of each channel; also moves the running statistics.
//
// Grid: splits * tiles blocks (tile.cuh). Reads x once, by 16 bytes if the shape allows it, with up to four loads in
// flight for each thread. Writes 32 bytes a channel, and with several splits 16 bytes for each channel and split. The
// last block of a tile adds up the splits in order.
#include "moments.cuh"

namespace bnkit {

template <typename T, int V, bool runs>
__global__ void __launch_bounds__(threads, V == 1 ? 3 : 2)
    moments(const T* __restrict__ x, double* statistics, double* partials, unsigned* tickets, Wide<T>* running_mean,
            Wide<T>* running_var, double decay, double correction, double eps, index groups, index rows, index channels,
            index inner, index splits, index chunk, int aligned) {
    using A = Wide<T>;
    using Walk = Tile<V, runs>;
    __shared__ MomentsMemory<A> memory;
    const Shape shape{groups, rows, channels, inner};
    const Walk tile(shape, blockIdx.x, splits, chunk);
    set_near_means(memory, tile, x);
    A k[Walk::owned];
#pragma unroll
    for (int c = 0; c < Walk::owned; ++c) k[c] = tile.column() < tile.columns ? memory.k[tile.column() + c] : A(0);
    Sums<A, V, Walk::owned> sums;
    Batches<T, V, runs, 1> batch(tile, {x}, aligned);
    while (batch.next()) {
#pragma unroll
        for (int u = 0; u < batch.size; ++u) {
            if (!batch.valid[u]) continue;
#pragma unroll
            for (int v = 0; v < V; ++v) {
                const A distance = widen(batch.of[u][0].of[v]) - k[runs ? 0 : v];
                sums.add(v, distance, distance * distance);
            }
        }
        sums.flush_in_time(batch.size);
    }
    sums.flush();
    add_over_block(memory.sums, tile, sums);
    if (!add_over_splits(memory.sums, tile, partials, tickets, splits)) return;
    set_moments(memory, tile, x, eps);
    store_moments(memory, tile, Statistics(statistics, shape.total_channels()),
                  Running<A>{running_mean, running_var, decay, correction});
}

}  // namespace bnkit
