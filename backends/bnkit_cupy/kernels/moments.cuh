// A channel's mean and squared distances, from sums of x - k and (x - k)².
#pragma once

#include "sums.cuh"

namespace bnkit {

constexpr int samples = 8;    // elements of a channel whose mean is k
constexpr double far = 4;     // (k - mean)² in variances beyond which the moments are taken anew in double
constexpr double largest = 1.7976931348623157e308;

// count, mean, m2 and rstd, each (groups, channels), one behind the other.
struct Statistics {
    double *count, *mean, *m2, *rstd;

    __device__ Statistics(double* all, index channels)
        : count(all), mean(all + channels), m2(all + 2 * channels), rstd(all + 3 * channels) {}
};

template <typename A> struct Running {
    A *mean, *var;  // null where there are none
    double decay, correction;
};

template <typename A> struct MomentsMemory {
    SumsMemory sums;
    A sample[samples][most_columns];
    A k[most_columns];
    double mean[most_columns], m2[most_columns], rstd[most_columns];
    bool doubtful[most_columns];
    double block[warps];
};

// Sets memory.k to the mean of a few elements spread over each channel. They are added by pairs, which makes it exact
// for a constant channel.
template <typename T, int V, bool runs>
__device__ void set_near_means(MomentsMemory<Wide<T>>& memory, const Tile<V, runs>& tile, const T* x) {
    using A = Wide<T>;
    const Shape& s = tile.shape;
    const int thread = thread_number(), width = tile.width();
    for (int i = thread; i < samples * width; i += threads) {
        const int column = i % width, n = i / width;
        if (column >= tile.columns) continue;
        const index place = n * s.rows / samples * s.inner + n * s.inner / samples;
        memory.sample[n][column] = widen(x[s.element(tile.channel + column, place)]) * (A(1) / samples);
    }
    __syncthreads();
    if (thread < tile.columns) {
        A pair[samples];
        for (int n = 0; n < samples; ++n) pair[n] = memory.sample[n][thread];
        for (int n = samples / 2; n > 0; n /= 2) {
            for (int i = 0; i < n; ++i) pair[i] += pair[i + n];
        }
        memory.k[thread] = pair[0];
    }
    __syncthreads();
}

// The sum of `own` over the block, in every thread.
__device__ inline double sum_over_block(double (&scratch)[warps], double own) {
    for (int away = 1; away < warp_threads; away *= 2) own += __shfl_xor_sync(whole_warp, own, away);
    __syncthreads();  // the one before has been read
    if (thread_number() % warp_threads == 0) scratch[thread_number() / warp_threads] = own;
    __syncthreads();
    double total = 0;
    for (int w = 0; w < warps; ++w) total += scratch[w];
    return total;
}

// By two passes in double, with a second look at the mean: slow, for what the shifted sums cannot do.
template <typename T, typename Memory>
__device__ void set_exact_moments(Memory& memory, const Shape& shape, const T* x, index channel, int column) {
    const index elements = shape.rows * shape.inner;
    const double n = shape.count();
    const auto value = [&](index i) { return static_cast<double>(widen(x[shape.element(channel, i)])); };
    double own = 0;
    for (index i = thread_number(); i < elements; i += threads) own += value(i);
    double mean = sum_over_block(memory.block, own) / n;
    own = 0;
    for (index i = thread_number(); i < elements; i += threads) own += value(i) - mean;
    mean += sum_over_block(memory.block, own) / n;
    own = 0;
    for (index i = thread_number(); i < elements; i += threads) own += (value(i) - mean) * (value(i) - mean);
    const double m2 = sum_over_block(memory.block, own);
    if (thread_number() == 0) {
        memory.mean[column] = mean;
        memory.m2[column] = m2;
    }
}

// From the tile's sums in memory.sums.total to memory.mean, m2 and rstd.
template <typename T, int V, bool runs>
__device__ void set_moments(MomentsMemory<Wide<T>>& memory, const Tile<V, runs>& tile, const T* x, double eps) {
    const int thread = thread_number();
    const double n = tile.shape.count();
    if (thread < tile.columns) {
        const double sum = memory.sums.total[0][thread], away = sum / n, k = static_cast<double>(memory.k[thread]);
        const double m2 = memory.sums.total[1][thread] - sum * away;
        memory.mean[thread] = k + away;
        memory.m2[thread] = m2;
        const bool good = away * away * n <= far * m2 && m2 <= largest;
        const bool not_a_number = isnan(sum) && !isinf(k);  // and so are the moments already
        memory.doubtful[thread] = !good && !not_a_number;
    }
    __syncthreads();
    for (int column = 0; column < tile.columns; ++column) {
        if (memory.doubtful[column]) set_exact_moments(memory, tile.shape, x, tile.channel + column, column);
    }
    __syncthreads();
    if (thread < tile.columns) memory.rstd[thread] = 1 / sqrt(memory.m2[thread] / n + eps);
    __syncthreads();
}

// running = decay * running + (1 - decay) * new, as the reference does it in float64.
template <typename A> __device__ void move(A* running, index channel, double fresh, double decay) {
    running[channel] = static_cast<A>(decay * static_cast<double>(running[channel]) + (1 - decay) * fresh);
}

template <typename A, int V, bool runs>
__device__ void store_moments(const MomentsMemory<A>& memory, const Tile<V, runs>& tile, const Statistics& to,
                              const Running<A>& running) {
    const int thread = thread_number();
    if (thread >= tile.columns) return;
    const index channel = tile.channel + thread;
    const double n = tile.shape.count();
    to.count[channel] = n;
    to.mean[channel] = memory.mean[thread];
    to.m2[channel] = memory.m2[thread];
    to.rstd[channel] = memory.rstd[thread];
    if (running.mean == nullptr) return;
    move(running.mean, channel, memory.mean[thread], running.decay);
    if (n > running.correction) {
        move(running.var, channel, memory.m2[thread] / (n - running.correction), running.decay);
    }
}

}  // namespace bnkit
