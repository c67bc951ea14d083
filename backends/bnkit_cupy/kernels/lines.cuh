// What the channels of a tile give to their elements: y = (x - k) * scale + shift, and in the backward
// dx = (dy + (x - k) * slope + offset) * scale.
//
// k is the mean as the elements' type of arithmetic holds it, so x - k is exact near it; the rest of the mean goes into
// shift and offset, in double.
#pragma once

#include "tile.cuh"

namespace bnkit {

template <typename A> struct Lines {
    A k[most_columns], scale[most_columns], shift[most_columns];
};

template <typename A> struct GradientLines : Lines<A> {
    A slope[most_columns], offset[most_columns];
};

template <typename A>
__device__ void set_affine(Lines<A>& lines, int column, index channel, double mean, double rstd, const A* gamma,
                           const A* beta) {
    const double scale = gamma ? rstd * static_cast<double>(gamma[channel]) : rstd;
    const A k = static_cast<A>(mean);
    lines.k[column] = k;
    lines.scale[column] = static_cast<A>(scale);
    lines.shift[column] = static_cast<A>((beta ? static_cast<double>(beta[channel]) : 0.0) -
                                         (mean - static_cast<double>(k)) * scale);
}

// sum_dy and sum_dy_x_hat over all n elements that the statistics came from.
template <typename A>
__device__ void set_gradient(GradientLines<A>& lines, int column, double mean, double rstd, double n, double sum_dy,
                             double sum_dy_x_hat) {
    const double slope = -rstd * sum_dy_x_hat / n;
    lines.slope[column] = static_cast<A>(slope);
    lines.offset[column] = static_cast<A>(-sum_dy / n - slope * (mean - static_cast<double>(lines.k[column])));
}

// The lines of a thread's own channels, in registers.
template <typename A, int owned> struct OwnLines {
    A k[owned], scale[owned], shift[owned];

    __device__ OwnLines(const Lines<A>& lines, int column) {
#pragma unroll
        for (int c = 0; c < owned; ++c) {
            k[c] = lines.k[column + c];
            scale[c] = lines.scale[column + c];
            shift[c] = lines.shift[column + c];
        }
    }
};

template <typename A, int owned> struct OwnGradientLines : OwnLines<A, owned> {
    A slope[owned], offset[owned];

    __device__ OwnGradientLines(const GradientLines<A>& lines, int column) : OwnLines<A, owned>(lines, column) {
#pragma unroll
        for (int c = 0; c < owned; ++c) {
            slope[c] = lines.slope[column + c];
            offset[c] = lines.offset[column + c];
        }
    }
};

// A float or a double array, as the caller has it.
struct Statistic {
    const void* values;
    int wide;

    __device__ double operator[](index i) const {
        return wide ? static_cast<const double*>(values)[i] : static_cast<double>(static_cast<const float*>(values)[i]);
    }
};

}  // namespace bnkit
