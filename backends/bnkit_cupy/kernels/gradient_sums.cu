// gradient_sums: Σ dy and Σ dy * x_hat of each channel, for the dy behind the ReLU.
//
// Grid: splits * tiles blocks (tile.cuh). Reads x and dy once, by 16 bytes if the shape allows it, and one bit for each
// element if the forward kept them. Writes 16 bytes a channel, up to 16 more for the gradients of gamma and beta, and
// with several splits 16 for each channel and split. The last block of a tile adds up the splits in order.
#include "wide.cuh"

namespace bnkit {

template <typename T, int V, bool runs>
__global__ void __launch_bounds__(threads, V == 8 ? 1 : 2)
    gradient_sums(const T* __restrict__ dy, const T* __restrict__ x, const unsigned* __restrict__ active,
                  const double* __restrict__ mean, const double* __restrict__ rstd, const Wide<T>* __restrict__ gamma,
                  const Wide<T>* __restrict__ beta, double* totals, double* partials, unsigned* tickets,
                  Wide<T>* dgamma, Wide<T>* dbeta, int gate, index groups, index rows, index channels, index inner,
                  index splits, index chunk, int aligned) {
    using A = Wide<T>;
    using Walk = Tile<V, runs>;
    __shared__ SumsMemory memory;
    __shared__ Lines<A> shared;
    const Shape shape{groups, rows, channels, inner};
    const Walk tile(shape, blockIdx.x, splits, chunk);
    const int thread = thread_number();
    bool wide = false;
    if (thread < tile.width()) {
        const index channel = tile.channel + (thread < tile.columns ? thread : 0);
        wide = !set_affine(shared, thread, channel, mean[channel], rstd[channel], gamma, beta);
    }
    wide = __syncthreads_or(wide);
    Sums<A, V, Walk::owned> sums;
    if (wide) {
        add_wide_gradients(sums, gate, active, shared.wide, x, dy, tile);
    } else {
        const ThreadLines<A, Walk::owned> lines(shared, tile.column());
        Batches<T, V, runs, 2> batch(tile, {x, dy}, aligned);
        while (batch.next()) {
#pragma unroll
            for (int u = 0; u < batch.size; ++u) {
                const auto& [input, upstream] = batch.of[u];
                A distance[V], gradient[V];
                get_gradient<T, V, runs>(gate, active, lines, input, upstream, tile, batch.at, u, distance, gradient);
                if (!batch.valid[u]) continue;
#pragma unroll
                for (int v = 0; v < V; ++v) sums.add(v, gradient[v], gradient[v] * distance[v]);
            }
            sums.flush_in_time(batch.size);
        }
        sums.flush();
    }
    add_over_block(memory, tile, sums);
    if (!add_over_splits(memory, tile, partials, tickets, splits) || thread >= tile.columns) return;
    const index channel = tile.channel + thread;
    if (!wide) set_gradient_sums(memory, shared, thread, mean[channel], rstd[channel]);
    totals[channel] = memory.total[0][thread];
    totals[shape.total_channels() + channel] = memory.total[1][thread];
    if (dbeta) dbeta[channel] = static_cast<A>(memory.total[0][thread]);
    if (dgamma) dgamma[channel] = static_cast<A>(memory.total[1][thread]);
}

}  // namespace bnkit
