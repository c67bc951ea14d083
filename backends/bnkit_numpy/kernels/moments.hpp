// A channel's mean and squared distances from sums of x - k, and the values of its lines.
#pragma once

#include <cmath>
#include <limits>

#include "frame.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

constexpr index samples = 8;  // elements of a channel whose mean is k
constexpr double far = 4;     // (k - mean)² in variances beyond which the sums are taken anew in double

// What arithmetic in A does with all its digits.
template <typename A> struct Range {
    static constexpr bool narrow = sizeof(A) == sizeof(float);
    static constexpr double least = narrow ? std::numeric_limits<float>::min() : std::numeric_limits<double>::min();
    static constexpr double most = narrow ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max();
    // A variance below which squares lose digits.
    static constexpr double variance = narrow ? 0x1p-96 : 0x1p-960;
    // std, and 1 / std, up to which x - k leaves room for a product with dy, of which float takes sizes from 1e-20 to
    // 1e20, and double from 1e-60 to 1e60.
    static constexpr double spread = narrow ? 0x1p60 : 0x1p800;
};

// Whether A is wide enough for all channels: no where x is spread too little or too far, or gamma / std overflows or
// vanishes although neither gamma nor std does. What is infinite, not a number or 0 is so in any arithmetic.
template <typename A> bool fits(index count, const double* rstd, const A* gamma) {
    using R = Range<A>;
    const auto within = [](double a, double least, double most) { return (a >= least) & (a <= most); };
    const auto scale = [&](index c) { return std::fabs(gamma ? rstd[c] * gamma[c] : rstd[c]); };
    int doubtful = 0;
    for (index c = 0; c < count; ++c) {
        doubtful |= !(within(rstd[c], 1 / R::spread, R::spread) & within(scale(c), R::least, R::most));
    }
    for (index c = 0; doubtful && c < count; ++c) {
        if (rstd[c] == 0 || !std::isfinite(rstd[c])) continue;
        if (!within(rstd[c], 1 / R::spread, R::spread)) return false;
        const bool ordinary = !gamma || within(std::fabs(static_cast<double>(gamma[c])), R::least, R::most);
        if (ordinary && !within(scale(c), R::least, R::most)) return false;
    }
    return true;
}

inline double count_of(const Shape& s) { return static_cast<double>(s.rows) * static_cast<double>(s.inner); }

inline index channels_of(const Shape& s) { return s.groups * s.channels; }

template <typename S> Wide<S> wide(S value) { return load<Wide<S>>(&value); }

template <typename S> const S* first_element(const Shape& s, const S* x, index channel) {
    return x + channel / s.channels * s.rows * s.channels * s.inner + channel % s.channels * s.inner;
}

template <typename S> struct ExactMoments {
    double mean = 0, m2 = 0, rstd = 0;

    // By two passes in double, with a second look at the mean: slow, for what the shifted sums cannot do. Of doubles
    // whose squares a double does not hold, the elements are multiplied by a power of two before.
    ExactMoments(const Shape& s, const S* x, index channel, double eps) {
        const auto for_each = [&](auto use) {
            const S* start = first_element(s, x, channel);
            for (index r = 0; r < s.rows; ++r) {
                const S* run = start + r * s.channels * s.inner;
                for (index i = 0; i < s.inner; ++i) use(static_cast<double>(wide(run[i])));
            }
        };
        double by = 1;
        if (sizeof(S) == sizeof(double)) {
            double size = std::sqrt(eps);
            for_each([&](double v) { size = std::fabs(v) > size ? std::fabs(v) : size; });
            by = size > 1e130 ? 0x1p-600 : size < 1e-130 ? 0x1p600 : 1;
        }
        const auto sum = [&](auto term) {
            double total = 0;
            for_each([&](double v) { total += term(v * by); });
            return total;
        };
        const double n = count_of(s);
        mean = sum([](double v) { return v; }) / n;
        mean += sum([&](double v) { return v - mean; }) / n;
        m2 = sum([&](double v) { return (v - mean) * (v - mean); });
        rstd = 1 / std::sqrt(m2 / n + eps * by * by) * by;
        mean /= by;
        m2 = m2 / by / by;
    }
};

// The values of a line, in the order of need.
enum { K, SCALE, SHIFT, SLOPE, OFFSET };

// The mean of a few elements spread over each channel.
template <typename S, typename L>
void set_near_means(const Shape& s, const S* x, L& lines, index channel, index count) {
    using A = Wide<S>;
    A* k = lines.of(K) + channel;
    const S* start = first_element(s, x, channel);
    for (index c = 0; c < count; ++c) k[c] = 0;
    const auto add = [&](auto inner) {  // a constant 1, the compiler makes vectors of
        for (index i = 0; i < samples; ++i) {
            const S* at = start + i * s.rows / samples * s.channels * inner + i * inner / samples;
            for (index c = 0; c < count; ++c) k[c] += wide(at[c * inner]) * (A{1} / samples);
        }
    };
    s.inner == 1 ? add(std::integral_constant<index, 1>{}) : add(s.inner);
}

template <typename A, typename L>
void set_affine(L& lines, index channel, index count, const double* mean, const double* rstd,
                const A* gamma, const A* beta) {
    A *k = lines.of(K) + channel, *a = lines.of(SCALE) + channel, *b = lines.of(SHIFT) + channel;
    for (index c = 0; c < count; ++c) {
        const double m = mean[channel + c], scale = gamma ? rstd[channel + c] * gamma[channel + c] : rstd[channel + c];
        k[c] = static_cast<A>(m);
        a[c] = static_cast<A>(scale);
        b[c] = static_cast<A>((beta ? beta[channel + c] : 0.0) - (m - static_cast<double>(k[c])) * scale);
    }
}

// The elements of a row of x, for their sums.
template <typename S> struct SumsRow {
    const S* x;

    template <typename V, int M> BNKIT_INLINE Pair<V> term(const Values<V, M>& values, V, index i) const {
        const V d = load<V>(x + i) - values.of[K];
        return {d, d * d};
    }

    template <typename... Arguments> void map(Arguments...) const {}  // there are no results
};

template <typename S> struct Sums {
    using Storage = S;
    using Arithmetic = Wide<S>;
    static constexpr int term_values = 1;
    const Shape& shape;
    const S* x;

    void fetch(index i) const { prefetch(x + i); }

    // Mean, m2 and, unless it is null, 1 / sqrt(m2 / n + eps) of the channels, from their sums of x - k.
    template <typename L>
    void set_moments(const L& lines, index channel, index count, const double* first, const double* second,
                     double* mean, double* m2, double* rstd, double eps) const {
        const double n = count_of(shape);
        const Arithmetic* k = lines.of(K) + channel;
        int doubtful = 0;
        constexpr double most = std::numeric_limits<double>::max();
        const double hidden = n * eps, vanishing = n * Range<Arithmetic>::variance;  // by eps, and where none does
        const auto bad = [&](double away, double squares) {
            return !((away * away * n <= far * squares) & (squares <= most) & (squares + hidden >= vanishing));
        };
        for (index c = 0; c < count; ++c) {
            const double away = first[c] / n;
            mean[channel + c] = k[c] + away;
            m2[channel + c] = second[c] - first[c] * away;
            doubtful |= bad(away, m2[channel + c]);
        }
        for (index c = channel; rstd && c < channel + count; ++c) rstd[c] = 1 / std::sqrt(m2[c] / n + eps);
        for (index c = 0; doubtful && c < count; ++c) {
            if (!bad(first[c] / n, m2[channel + c])) continue;
            // x holds NaN, and mean and m2 are so. The other sum tells less: it may be infinity minus infinity.
            if (std::isnan(second[c]) && !std::isinf(static_cast<double>(k[c]))) continue;
            const bool equal = first[c] == 0 && second[c] == 0 && k[c] == wide(*first_element(shape, x, channel + c));
            if (equal) continue;  // elements are frequent, and have lost nothing; of other ones k is hardly the first
            const ExactMoments<S> exact(shape, x, channel + c, eps);
            mean[channel + c] = exact.mean;
            m2[channel + c] = exact.m2;
            if (rstd) rstd[channel + c] = exact.rstd;
        }
    }
};

}  // namespace
}  // namespace BNKIT_LEVEL
}  // namespace bnkit
