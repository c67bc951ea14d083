// The arithmetic of one channel, on scalars: C++17 that NVRTC and the CPU's compiler both read.
//
// It lies with the CUDA kernels, since these are compiled from the installed package. On the CPU every function is
// static: each SIMD level needs a copy of its own, which the linker must not merge.
#pragma once

#if defined(__CUDACC__) || defined(BNKIT_HOST)
#define BNKIT_SCALAR __device__ __forceinline__
#else
#include <math.h>
#define BNKIT_SCALAR static inline
#endif

namespace bnkit {

constexpr int samples = 8;  // elements of a channel whose mean is k
constexpr double far = 4;   // (k - mean)² in variances, beyond which the moments are computed again in double

// The limits within which arithmetic in A keeps all its digits.
template <typename A> struct Range {
    static constexpr bool narrow = sizeof(A) == sizeof(float);
    static constexpr double least = narrow ? 0x1p-126 : 0x1p-1022;
    static constexpr double most = narrow ? 0x1.fffffep127 : 0x1.fffffffffffffp1023;
    // A variance below which squares lose digits.
    static constexpr double variance = narrow ? 0x1p-96 : 0x1p-960;
    // The std, and 1 / std, up to which x - k leaves room for a product with dy: in float of sizes from 1e-20 to 1e20,
    // in double from 1e-60 to 1e60.
    static constexpr double spread = narrow ? 0x1p60 : 0x1p800;
};

BNKIT_SCALAR bool within(double a, double least, double most) { return (a >= least) & (a <= most); }

// Whether A is wide enough for a channel. It is not where x is spread too little or too far, or where gamma / std
// overflows or vanishes although neither gamma nor std does. What is infinite, NaN or 0 is so in any arithmetic.
template <typename A> BNKIT_SCALAR bool fits(double rstd, double gamma) {
    using R = Range<A>;
    if (rstd == 0 || !isfinite(rstd)) return true;
    if (!within(rstd, 1 / R::spread, R::spread)) return false;
    return !within(fabs(gamma), R::least, R::most) || within(fabs(rstd * gamma), R::least, R::most);
}

// Sample n of a channel's rows * inner elements, which are spread over it.
template <typename I> BNKIT_SCALAR I sample_row(I n, I rows) { return n * rows / samples; }

// Mean and m2, the sum of squared distances from the mean.
struct MeanAndSquares {
    double mean, m2;
};

// From the sums of x - k and (x - k)².
BNKIT_SCALAR MeanAndSquares from_shifted_sums(double k, double n, double first, double second) {
    const double away = first / n;
    return {k + away, second - first * away};
}

// Whether these sums have lost digits: k is far from the mean, or squares left the range and eps does not hide it.
template <typename A> BNKIT_SCALAR bool lost_digits(double n, double first, double m2, double eps) {
    const double away = first / n;
    return !((away * away * n <= far * m2) & (m2 <= Range<double>::most) & (m2 + n * eps >= n * Range<A>::variance));
}

// Whether the moments that have lost digits are right nevertheless. x holds NaN, and so do mean and m2 (the first sum
// tells less: it may be infinity minus infinity). Or all elements are equal, which is frequent; k is hardly ever the
// first of other elements.
BNKIT_SCALAR bool are_right_anyway(double k, double first, double second, double first_element) {
    return (isnan(second) && !isinf(k)) || (first == 0 && second == 0 && k == first_element);
}

BNKIT_SCALAR double rstd_of(double m2, double n, double eps) { return 1 / sqrt(m2 / n + eps); }

// The power of two by which doubles of this size are multiplied so that a double holds their squares.
BNKIT_SCALAR double power_for(double size) { return size > 1e130 ? 0x1p-600 : size < 1e-130 ? 0x1p600 : 1; }

// running * decay + fresh * (1 - decay), computed in double as the reference does.
template <typename A> BNKIT_SCALAR A moved(A running, double fresh, double decay) {
    return static_cast<A>(decay * static_cast<double>(running) + (1 - decay) * fresh);
}

// y = (x - k) * scale + shift. k is the mean as A holds it, so x - k is exact near it; the rest of the mean goes into
// the shift, in double.
template <typename A> struct Affine {
    A k, scale, shift;
};

template <typename A> BNKIT_SCALAR Affine<A> affine_of(double mean, double rstd, double gamma, double beta) {
    const double scale = rstd * gamma;
    const A k = static_cast<A>(mean);
    return {k, static_cast<A>(scale), static_cast<A>(beta - (mean - static_cast<double>(k)) * scale)};
}

// Σ dy * x_hat from the sums of dy and dy * (x - k). rest: mean - k.
BNKIT_SCALAR double sum_dy_x_hat_of(double rest, double rstd, double sum_dy, double sum_dy_away) {
    return rstd * (sum_dy_away - rest * sum_dy);
}

// dx = (dy + (x - k) * slope + offset) * scale, from the sums over the n elements that the statistics came from.
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
