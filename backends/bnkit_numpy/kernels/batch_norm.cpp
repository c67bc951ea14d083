// Batch norm on the CPU, compiled once for each SIMD level (BNKIT_LEVEL names it).
//
// How a tensor is walked, and what of it is read twice, stands in walk.hpp.
//
// Sums are taken of x - k for a k near the mean, from a few samples: exact in T at any mean. They run in T for a few
// additions a lane and go on in double.

#include "batch_norm.hpp"

#include <cmath>

#include "walk.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

constexpr index samples = 16;           // elements of a channel whose mean is k
constexpr double far = 4;               // (k - mean)² in variances beyond which the sums are taken anew in double

// What an element's result is made of, one entry a channel of all groups.
template <typename T> struct Lines {
    explicit Lines(index n) : k(n), a(n), b(n), slope(n), offset(n) {}
    Scratch<T> k;              // the mean in T
    Scratch<T> a, b;           // y = (x - k) * a + b
    Scratch<T> slope, offset;  // dx = dy * a + (x - k) * slope + offset
};

template <typename T> const T* first_element(const Shape& s, const T* x, index channel) {
    return x + channel / s.channels * s.rows * s.channels * s.inner + channel % s.channels * s.inner;
}

// The mean of a few elements spread over the channel.
template <typename T> T near_mean(const Shape& s, const T* x, index channel) {
    const T* start = first_element(s, x, channel);
    double sum = 0;
    for (index i = 0; i < samples; ++i) {
        sum += start[i * s.rows / samples * s.channels * s.inner + i * s.inner / samples];
    }
    return static_cast<T>(sum / samples);
}

template <typename T> struct ExactMoments {
    double mean = 0, m2 = 0;

    // By two passes in double, with a second look at the mean: slow, for what the shifted sums cannot do.
    ExactMoments(const Shape& s, const T* x, index channel) {
        const double n = static_cast<double>(s.rows) * static_cast<double>(s.inner);
        const auto sum = [&](auto term) {
            double total = 0;
            const T* start = first_element(s, x, channel);
            for (index r = 0; r < s.rows; ++r) {
                const T* run = start + r * s.channels * s.inner;
                for (index i = 0; i < s.inner; ++i) total += term(static_cast<double>(run[i]));
            }
            return total;
        };
        mean = sum([](double v) { return v; }) / n;
        mean += sum([&](double v) { return v - mean; }) / n;
        m2 = sum([&](double v) { return (v - mean) * (v - mean); });
    }
};

// y = (x - k) * a + b with k the mean in T: exact for every mean, since the rest of it is folded into b.
template <typename T>
void set_line(Lines<T>& lines, index c, double mean, double rstd, const T* gamma, const T* beta) {
    const double scale = gamma ? rstd * gamma[c] : rstd;
    lines.k[c] = static_cast<T>(mean);
    lines.a[c] = static_cast<T>(scale);
    lines.b[c] = static_cast<T>((beta ? beta[c] : 0.0) - (mean - lines.k[c]) * scale);
}

template <typename Access, typename V, typename T>
inline V affine(Access, V tag, const T* x, const Lines<T>& lines, index i, index c) {
    const V d = load<V>(x + i) - Access::get(tag, lines.k.data(), c);
    return d * Access::get(tag, lines.a.data(), c) + Access::get(tag, lines.b.data(), c);
}

template <typename V> inline V relu(V y) {
    const V zero{};
    return y < zero ? zero : y;  // NaN stays
}

template <typename T> void train(const Train<T>& t) {
    const Shape& s = t.shape;
    const index channels = s.groups * s.channels;
    const double n = static_cast<double>(s.rows) * static_cast<double>(s.inner);
    Lines<T> lines(channels);
    for (index c = 0; c < channels; ++c) lines.k[c] = near_mean(s, t.x, c);
    const auto term = [&](auto access, auto tag, index i, index c) {
        const auto d = load<decltype(tag)>(t.x + i) - access.get(tag, lines.k.data(), c);
        return Pair<decltype(tag)>{d, d * d};
    };
    const auto finish = [&](index c, const Sums& sums) {
        const double away = sums.first / n;
        double mean = lines.k[c] + away, m2 = sums.second - sums.first * away;
        if (!std::isfinite(sums.second) || away * away * n > far * m2) {
            const ExactMoments<T> exact(s, t.x, c);
            mean = exact.mean;
            m2 = exact.m2;
        }
        const double rstd = 1 / std::sqrt(m2 / n + t.eps);
        t.mean[c] = mean;
        t.m2[c] = m2;
        t.rstd[c] = rstd;
        set_line(lines, c, mean, rstd, t.gamma, t.beta);
        if (t.running_mean) {
            const auto move = [&](T& running, double value) {
                running = static_cast<T>(t.decay * running + (1 - t.decay) * value);
            };
            move(t.running_mean[c], mean);
            if (n > t.correction) move(t.running_var[c], m2 / (n - t.correction));
        }
    };
    if (t.relu) {
        walk<T>(s, term, finish, [&](auto access, auto tag, index i, index c) {
            store(t.y + i, relu(affine(access, tag, t.x, lines, i, c)));
        });
    } else {
        walk<T>(s, term, finish, [&](auto access, auto tag, index i, index c) {
            store(t.y + i, affine(access, tag, t.x, lines, i, c));
        });
    }
}

template <typename T> void inference(const Inference<T>& f) {
    const Shape& s = f.shape;
    Lines<T> lines(s.groups * s.channels);
    for (index c = 0; c < s.groups * s.channels; ++c) {
        set_line(lines, c, f.mean[c], 1 / std::sqrt(static_cast<double>(f.var[c]) + f.eps), f.gamma, f.beta);
    }
    if (f.relu) {
        each_element<T>(s, [&](auto access, auto tag, index i, index c) {
            store(f.y + i, relu(affine(access, tag, f.x, lines, i, c)));
        });
    } else {
        each_element<T>(s, [&](auto access, auto tag, index i, index c) {
            store(f.y + i, affine(access, tag, f.x, lines, i, c));
        });
    }
}

template <typename T> void backward(const Backward<T>& b) {
    const Shape& s = b.shape;
    const double n = static_cast<double>(s.rows) * static_cast<double>(s.inner);
    Lines<T> lines(s.groups * s.channels);
    for (index c = 0; c < s.groups * s.channels; ++c) set_line(lines, c, b.mean[c], b.rstd[c], b.gamma, b.beta);
    const auto let_through = [&](auto access, auto tag, index i, index c) {
        const decltype(tag) dy = load<decltype(tag)>(b.dy + i), zero{};
        return b.relu ? (affine(access, tag, b.x, lines, i, c) > zero ? dy : zero) : dy;
    };
    const auto term = [&](auto access, auto tag, index i, index c) {
        const auto dy = let_through(access, tag, i, c);
        return Pair<decltype(tag)>{dy, dy * (load<decltype(tag)>(b.x + i) - access.get(tag, lines.k.data(), c))};
    };
    const auto finish = [&](index c, const Sums& sums) {
        const double rest = b.mean[c] - lines.k[c], dbeta = sums.first;
        const double dgamma = b.rstd[c] * (sums.second - rest * sums.first);
        b.dbeta[c] = static_cast<T>(dbeta);
        b.dgamma[c] = static_cast<T>(dgamma);
        const double scale = b.gamma ? b.rstd[c] * b.gamma[c] : b.rstd[c], slope = -scale * b.rstd[c] * dgamma / n;
        lines.slope[c] = static_cast<T>(slope);
        lines.offset[c] = static_cast<T>(-scale * dbeta / n - slope * rest);
    };
    if (b.train) {
        walk<T>(s, term, finish, [&](auto access, auto tag, index i, index c) {
            const auto d = load<decltype(tag)>(b.x + i) - access.get(tag, lines.k.data(), c);
            const auto slope = access.get(tag, lines.slope.data(), c), offset = access.get(tag, lines.offset.data(), c);
            const auto through_statistics = d * slope + offset;
            store(b.dx + i, let_through(access, tag, i, c) * access.get(tag, lines.a.data(), c) + through_statistics);
        });
    } else {
        walk<T>(s, term, finish, [&](auto access, auto tag, index i, index c) {
            store(b.dx + i, let_through(access, tag, i, c) * access.get(tag, lines.a.data(), c));
        });
    }
}

}  // namespace

const Level level = {
    {&train<float>, &inference<float>, &backward<float>},
    {&train<double>, &inference<double>, &backward<double>},
};

}  // namespace BNKIT_LEVEL
}  // namespace bnkit
