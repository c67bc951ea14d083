// The coefficients of the channels of a tile: y = (x - k) * scale + shift, and in the backward
// dx = (dy + (x - k) * slope + offset) * scale.
//
// k is the mean rounded to the type of arithmetic, so x - k is exact near the mean. shift and offset include its rest,
// in double. If A is too narrow for a channel, the whole tile is computed with WideLines instead (wide.cuh).
#pragma once

#include "channel.cuh"
#include "tile.cuh"

namespace bnkit {

// Coefficients in double, if A is too narrow: x_hat = (x - mean) * rstd, and gamma / std = first * second.
struct WideLines {
    double mean[most_columns], rstd[most_columns], first[most_columns], second[most_columns], beta[most_columns];
};

template <typename A> struct Lines {
    A k[most_columns], scale[most_columns], shift[most_columns];
    WideLines wide;
};

template <typename A> struct GradientLines : Lines<A> {
    A slope[most_columns], offset[most_columns];
    double mean_dy[most_columns], mean_dy_x_hat[most_columns];  // for WideLines
};

// Sets the coefficients of y; returns whether A is wide enough for the channel.
template <typename A>
__device__ bool set_affine(Lines<A>& lines, int column, index channel, double mean, double rstd, const A* gamma,
                           const A* beta) {
    const double factor = gamma ? static_cast<double>(gamma[channel]) : 1.0, scale = rstd * factor;
    const double plus = beta ? static_cast<double>(beta[channel]) : 0.0;
    const Affine<A> affine = affine_of<A>(mean, rstd, factor, plus);
    lines.k[column] = affine.k;
    lines.scale[column] = affine.scale;
    lines.shift[column] = affine.shift;
    const bool product = within(fabs(scale), Range<double>::least, Range<double>::most) || factor == 0;
    lines.wide.mean[column] = mean;
    lines.wide.rstd[column] = rstd;
    lines.wide.first[column] = product ? scale : rstd;
    lines.wide.second[column] = product ? 1 : factor;
    lines.wide.beta[column] = plus;
    return fits<A>(rstd, factor);
}

// Sets the coefficients of dx, from sums over the n elements of the statistics.
template <typename A>
__device__ void set_gradient(GradientLines<A>& lines, int column, double mean, double rstd, double n, double sum_dy,
                             double sum_dy_x_hat) {
    const double rest = mean - static_cast<double>(lines.k[column]);
    const ThroughStatistics<A> through = through_statistics<A>(rest, rstd, n, sum_dy, sum_dy_x_hat);
    lines.slope[column] = through.slope;
    lines.offset[column] = through.offset;
    lines.mean_dy[column] = sum_dy / n;
    lines.mean_dy_x_hat[column] = sum_dy_x_hat / n;
}

// The lines of a thread's channels, in registers.
template <typename A, int owned> struct ThreadLines {
    A k[owned], scale[owned], shift[owned];

    __device__ ThreadLines(const Lines<A>& lines, int column) {
#pragma unroll
        for (int c = 0; c < owned; ++c) {
            k[c] = lines.k[column + c];
            scale[c] = lines.scale[column + c];
            shift[c] = lines.shift[column + c];
        }
    }
};

template <typename A, int owned> struct ThreadGradientLines : ThreadLines<A, owned> {
    A slope[owned], offset[owned];

    __device__ ThreadGradientLines(const GradientLines<A>& lines, int column) : ThreadLines<A, owned>(lines, column) {
#pragma unroll
        for (int c = 0; c < owned; ++c) {
            slope[c] = lines.slope[column + c];
            offset[c] = lines.offset[column + c];
        }
    }
};

// The caller's array of float or double.
struct Statistic {
    const void* values;
    int wide;

    __device__ double operator[](index i) const {
        return wide ? static_cast<const double*>(values)[i] : static_cast<double>(static_cast<const float*>(values)[i]);
    }
};

}  // namespace bnkit
