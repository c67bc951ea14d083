// The arithmetic of one channel, on scalars: C++17 for NVRTC and for the CPU's compiler.
//
// The file is part of the CUDA kernels, which CuPy compiles from the installed package. On the CPU every function is
// static: each SIMD level needs its copy, and the linker must not merge them.
#pragma once

#if defined(__CUDACC__) || defined(BNKIT_HOST)
#define BNKIT_SCALAR __device__ __forceinline__
#else
#include <math.h>
#define BNKIT_SCALAR static inline
#endif

namespace bnkit {

constexpr int samples = 8;  // k is the mean of this many elements of a channel
constexpr double far = 4;   // if (k - mean)² exceeds this many variances, the moments are computed again in double

// The limits within which arithmetic in A keeps all its digits.
template <typename A> struct Range {
    static constexpr bool narrow = sizeof(A) == sizeof(float);
    static constexpr double least = narrow ? 0x1p-126 : 0x1p-1022;
    static constexpr double most = narrow ? 0x1.fffffep127 : 0x1.fffffffffffffp1023;
    // A variance below which squares lose digits.
    static constexpr double variance = narrow ? 0x1p-96 : 0x1p-960;
    // The largest std, and 1 / std, for which a product of x - k with dy stays in range: for float with dy from 1e-20 to
    // 1e20, for double with dy from 1e-60 to 1e60.
    static constexpr double spread = narrow ? 0x1p60 : 0x1p800;
};

BNKIT_SCALAR bool within(double a, double least, double most) { return (a >= least) & (a <= most); }

// Whether A is wide enough for a channel. It is not if the std of x is too small or too large, or if gamma / std
// overflows or underflows although gamma and std do not. Infinity, NaN and 0 are the same in any arithmetic.
template <typename A> BNKIT_SCALAR bool fits(double rstd, double gamma) {
    using R = Range<A>;
    if (rstd == 0 || !isfinite(rstd)) return true;
    if (!within(rstd, 1 / R::spread, R::spread)) return false;
    return !within(fabs(gamma), R::least, R::most) || within(fabs(rstd * gamma), R::least, R::most);
}

// The row of sample n; the samples are spread over the channel.
template <typename I> BNKIT_SCALAR I sample_row(I n, I rows) { return n * rows / samples; }

// Mean and m2, the sum of squared distances from the mean.
struct MeanAndSquares {
    double mean, m2;
};

// The moments from the sums of x - k and (x - k)².
BNKIT_SCALAR MeanAndSquares from_shifted_sums(double k, double n, double first, double second) {
    const double distance = first / n;
    return {k + distance, second - first * distance};
}

// Whether these sums have lost digits: k is far from the mean, or squares left the range and eps does not cover it.
template <typename A> BNKIT_SCALAR bool lost_digits(double n, double first, double m2, double eps) {
    const double distance = first / n;
    return !((distance * distance * n <= far * m2) & (m2 <= Range<double>::most) &
             (m2 + n * eps >= n * Range<A>::variance));
}

// Whether the moments are right although the test for lost digits failed. Either x holds NaN, and mean and m2 are NaN
// (the first sum is no evidence: it may be infinity minus infinity). Or all elements are equal, which is frequent; with
// unequal elements k is hardly ever equal to the first one.
BNKIT_SCALAR bool are_right_anyway(double k, double first, double second, double first_element) {
    return (isnan(second) && !isinf(k)) || (first == 0 && second == 0 && k == first_element);
}

BNKIT_SCALAR double rstd_of(double m2, double n, double eps) { return 1 / sqrt(m2 / n + eps); }

// A power of two: doubles of this size times it have squares that a double holds.
BNKIT_SCALAR double power_for(double size) { return size > 1e130 ? 0x1p-600 : size < 1e-130 ? 0x1p600 : 1; }

// running * decay + fresh * (1 - decay), in double as in the reference.
template <typename A> BNKIT_SCALAR A moved(A running, double fresh, double decay) {
    return static_cast<A>(decay * static_cast<double>(running) + (1 - decay) * fresh);
}

// y = (x - k) * scale + shift. k is the mean rounded to A, so x - k is exact near the mean. The shift includes the rest
// of the mean, in double.
template <typename A> struct Affine {
    A k, scale, shift;
};

template <typename A> BNKIT_SCALAR Affine<A> affine_of(double mean, double rstd, double gamma, double beta) {
    const double scale = rstd * gamma;
    const A k = static_cast<A>(mean);
    return {k, static_cast<A>(scale), static_cast<A>(beta - (mean - static_cast<double>(k)) * scale)};
}

// Σ dy * x_hat from the sums of dy and dy * (x - k). rest: mean - k.
BNKIT_SCALAR double sum_dy_x_hat_of(double rest, double rstd, double sum_dy, double sum_dy_distance) {
    return rstd * (sum_dy_distance - rest * sum_dy);
}

// dx = (dy + (x - k) * slope + offset) * scale, from the sums over the n elements of the statistics.
template <typename A> struct ThroughStatistics {
    A slope, offset;
};

template <typename A>
BNKIT_SCALAR ThroughStatistics<A> through_statistics(double rest, double rstd, double n, double sum_dy,
                                                     double sum_dy_x_hat) {
    const double slope = -rstd * sum_dy_x_hat / n;
    return {static_cast<A>(slope), static_cast<A>(-sum_dy / n - slope * rest)};
}

}  // namespace bnkit
