// The mean and squared distances of a channel, from sums of x - k and (x - k)².
#pragma once

#include "lines.cuh"
#include "sums.cuh"

namespace bnkit {

// count, mean, m2 and rstd, each (groups, channels), one after the other.
struct Statistics {
    double *count, *mean, *m2, *rstd;

    __device__ Statistics(double* all, index channels)
        : count(all), mean(all + channels), m2(all + 2 * channels), rstd(all + 3 * channels) {}
};

template <typename A> struct Running {
    A *mean, *var;  // may be null
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

// Sets memory.k to the mean of `samples` elements spread over each channel. Pairwise addition makes it exact for a
// constant channel.
template <typename T, int V, bool runs>
__device__ void set_near_means(MomentsMemory<Wide<T>>& memory, const Tile<V, runs>& tile, const T* x) {
    using A = Wide<T>;
    const Shape& s = tile.shape;
    const int thread = thread_number(), width = tile.width();
    for (int i = thread; i < samples * width; i += threads) {
        const int column = i % width, n = i / width;
        if (column >= tile.columns) continue;
        const index place = sample_row<index>(n, s.rows) * s.inner + sample_row<index>(n, s.inner);
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

// Reduces the values of all threads of the block by `join`; every thread receives the result.
template <typename Join> __device__ double over_block(double (&scratch)[warps], double value, Join join) {
    for (int lane_offset = 1; lane_offset < warp_threads; lane_offset *= 2) {
        value = join(value, __shfl_xor_sync(whole_warp, value, lane_offset));
    }
    __syncthreads();  // the last result has been read
    if (thread_number() % warp_threads == 0) scratch[thread_number() / warp_threads] = value;
    __syncthreads();
    double total = scratch[0];
    for (int w = 1; w < warps; ++w) total = join(total, scratch[w]);
    return total;
}

__device__ inline double sum_over_block(double (&scratch)[warps], double value) {
    return over_block(scratch, value, [](double a, double b) { return a + b; });
}

// Sets the moments by two passes in double and a correction of the mean: slow, for channels that the shifted sums
// cannot serve. Doubles whose squares a double does not hold are first multiplied by a power of two.
template <typename T, typename Memory>
__device__ void set_exact_moments(Memory& memory, const Shape& shape, const T* x, index channel, int column,
                                  double eps) {
    const index elements = shape.rows * shape.inner;
    const double n = shape.count();
    double by = 1;
    if (sizeof(T) == sizeof(double)) {
        double size = sqrt(eps);
        for (index i = thread_number(); i < elements; i += threads) {
            size = fmax(size, fabs(static_cast<double>(widen(x[shape.element(channel, i)]))));
        }
        size = over_block(memory.block, size, [](double a, double b) { return fmax(a, b); });
        by = power_for(size);
    }
    const auto value = [&](index i) { return static_cast<double>(widen(x[shape.element(channel, i)])) * by; };
    double sum = 0;
    for (index i = thread_number(); i < elements; i += threads) sum += value(i);
    double mean = sum_over_block(memory.block, sum) / n;
    sum = 0;
    for (index i = thread_number(); i < elements; i += threads) sum += value(i) - mean;
    mean += sum_over_block(memory.block, sum) / n;
    sum = 0;
    for (index i = thread_number(); i < elements; i += threads) sum += (value(i) - mean) * (value(i) - mean);
    const double m2 = sum_over_block(memory.block, sum);
    if (thread_number() == 0) {
        memory.mean[column] = mean / by;
        memory.m2[column] = m2 / by / by;
        memory.rstd[column] = rstd_of(m2, n, eps * by * by) * by;
    }
}

// Sets memory.mean, m2 and rstd from the tile's sums in memory.sums.total.
template <typename T, int V, bool runs>
__device__ void set_moments(MomentsMemory<Wide<T>>& memory, const Tile<V, runs>& tile, const T* x, double eps) {
    const int thread = thread_number();
    const double n = tile.shape.count();
    if (thread < tile.columns) {
        const double first = memory.sums.total[0][thread], second = memory.sums.total[1][thread];
        const double k = static_cast<double>(memory.k[thread]);
        const MeanAndSquares moments = from_shifted_sums(k, n, first, second);
        memory.mean[thread] = moments.mean;
        memory.m2[thread] = moments.m2;
        memory.rstd[thread] = rstd_of(moments.m2, n, eps);
        bool doubtful = lost_digits<Wide<T>>(n, first, moments.m2, eps);
        if (doubtful) {
            const double one = static_cast<double>(widen(x[tile.shape.element(tile.channel + thread, 0)]));
            doubtful = !are_right_anyway(k, first, second, one);
        }
        memory.doubtful[thread] = doubtful;
    }
    __syncthreads();
    for (int column = 0; column < tile.columns; ++column) {
        if (memory.doubtful[column]) set_exact_moments(memory, tile.shape, x, tile.channel + column, column, eps);
    }
    __syncthreads();
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
    running.mean[channel] = moved<A>(running.mean[channel], memory.mean[thread], running.decay);
    if (n > running.correction) {
        const double var = memory.m2[thread] / (n - running.correction);
        running.var[channel] = moved<A>(running.var[channel], var, running.decay);
    }
}

}  // namespace bnkit
