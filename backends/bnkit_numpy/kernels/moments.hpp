// The channels of a batch norm on the CPU: from sums to moments, and from moments to coefficients.
#pragma once

#include "channel.cuh"
#include "frame.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

inline double count_of(const Shape& s) { return static_cast<double>(s.rows) * static_cast<double>(s.inner); }

inline index channels_of(const Shape& s) { return s.groups * s.channels; }

// Whether A is wide enough for all channels. The first loop has no branches, and nearly always suffices.
template <typename A> bool fits_all(index count, const double* rstd, const A* gamma) {
    using R = Range<A>;
    int doubtful = 0;
    for (index c = 0; c < count; ++c) {
        const double scale = fabs(gamma ? rstd[c] * gamma[c] : rstd[c]);
        doubtful |= !(within(rstd[c], 1 / R::spread, R::spread) & within(scale, R::least, R::most));
    }
    for (index c = 0; doubtful && c < count; ++c) {
        if (!fits<A>(rstd[c], gamma ? static_cast<double>(gamma[c]) : 1)) return false;
    }
    return true;
}

template <typename S> Wide<S> wide(S value) { return load<Wide<S>>(&value); }

template <typename S> const S* first_element(const Shape& s, const S* x, index channel) {
    return x + channel / s.channels * s.rows * s.channels * s.inner + channel % s.channels * s.inner;
}

// Sets the moments of one channel by two passes in double and a correction of the mean: slow, for channels that the
// shifted sums cannot serve. Doubles whose squares a double does not hold are first multiplied by a power of two.
template <typename S> void set_exact_moments(const MomentsOf<S>& call, index channel) {
    const Shape& s = call.shape;
    const auto for_each = [&](auto use) {
        const S* start = first_element(s, call.x, channel);
        for (index r = 0; r < s.rows; ++r) {
            const S* run = start + r * s.channels * s.inner;
            for (index i = 0; i < s.inner; ++i) use(static_cast<double>(wide(run[i])));
        }
    };
    double by = 1;
    if (sizeof(S) == sizeof(double)) {
        double size = sqrt(call.eps);
        for_each([&](double v) { size = fabs(v) > size ? fabs(v) : size; });
        by = power_for(size);
    }
    const auto sum = [&](auto term) {
        double total = 0;
        for_each([&](double v) { total += term(v * by); });
        return total;
    };
    const double n = count_of(s);
    double mean = sum([](double v) { return v; }) / n;
    mean += sum([&](double v) { return v - mean; }) / n;
    const double m2 = sum([&](double v) { return (v - mean) * (v - mean); });
    call.mean[channel] = mean / by;
    call.m2[channel] = m2 / by / by;
    if (call.rstd) call.rstd[channel] = rstd_of(m2, n, call.eps * by * by) * by;
}

// Sets the coefficients of y.
template <typename A>
void set_affine(Lines<A>& lines, index channel, index count, const double* mean, const double* rstd, const A* gamma,
                const A* beta) {
    A *k = lines.of(K) + channel, *a = lines.of(SCALE) + channel, *b = lines.of(SHIFT) + channel;
    for (index c = 0; c < count; ++c) {
        const index i = channel + c;
        const Affine<A> affine = affine_of<A>(mean[i], rstd[i], gamma ? gamma[i] : 1.0, beta ? beta[i] : 0.0);
        k[c] = affine.k;
        a[c] = affine.scale;
        b[c] = affine.shift;
    }
}

// The channels of an op that computes moments.
template <typename S> struct MomentsChannels {
    using A = Wide<S>;
    const MomentsOf<S> call;
    Lines<A> lines;

    MomentsChannels(const MomentsOf<S>& moments, int values)
        : call(moments), lines(values, channels_of(moments.shape)) {}

    // Sets k to the mean of `samples` elements spread over the channel.
    void begin(index channel, index count) {
        const Shape& s = call.shape;
        A* k = lines.of(K) + channel;
        const S* start = first_element(s, call.x, channel);
        for (index c = 0; c < count; ++c) k[c] = 0;
        const auto add = [&](auto inner) {  // with the constant 1 the compiler vectorizes the loop
            for (index i = 0; i < samples; ++i) {
                const S* at = start + sample_row(i, s.rows) * s.channels * inner + sample_row<index>(i, inner);
                for (index c = 0; c < count; ++c) k[c] += wide(at[c * inner]) * (A{1} / samples);
            }
        };
        s.inner == 1 ? add(std::integral_constant<index, 1>{}) : add(s.inner);
    }

    void finish(index channel, index count, const double* first, const double* second) {
        const double n = count_of(call.shape), eps = call.eps;
        const A* k = lines.of(K) + channel;
        double *mean = call.mean + channel, *m2 = call.m2 + channel;
        double* rstd = call.rstd ? call.rstd + channel : nullptr;
        int doubtful = 0;
        for (index c = 0; c < count; ++c) {
            const MeanAndSquares moments = from_shifted_sums(k[c], n, first[c], second[c]);
            mean[c] = moments.mean;
            m2[c] = moments.m2;
            doubtful |= lost_digits<A>(n, first[c], moments.m2, eps);
        }
        for (index c = 0; rstd && c < count; ++c) rstd[c] = rstd_of(m2[c], n, eps);
        for (index c = 0; doubtful && c < count; ++c) {
            if (!lost_digits<A>(n, first[c], m2[c], eps)) continue;
            const double one = wide(*first_element(call.shape, call.x, channel + c));
            if (!are_right_anyway(k[c], first[c], second[c], one)) set_exact_moments(call, channel + c);
        }
    }
};

// The terms x - k and (x - k)².
template <typename S> struct MomentsTerms {
    using Storage = S;
    static constexpr int values = 1;
    const S* x;

    MomentsTerms at(const Row& row) const { return {x + row.start}; }
    void fetch(index i) const { prefetch(x + i); }

    template <typename V> BNKIT_INLINE Pair<V> term(const Values<V, values>& channel, V, index i) const {
        const V d = load<V>(x + i) - channel.of[K];
        return {d, d * d};
    }
};

}  // namespace
}  // namespace BNKIT_LEVEL
}  // namespace bnkit
