// Batch norm on the CPU, compiled once for each SIMD level (BNKIT_LEVEL names it).
//
// How a tensor is walked, and what of it is read twice, stands in walk.hpp.
//
// Sums are taken of x - k for a k near the mean, from a few samples: exact in float at any mean. They run in float for
// a few additions a lane and go on in double. Results are (x - k) * a + b with k the mean as a float: exact for every
// mean, since the rest of it is folded into b.

#include "batch_norm.hpp"

#include <cmath>

#include "moments.hpp"
#include "walk.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

// What is reckoned to stay in the last-level cache: results beyond it are streamed. More would pay with a larger one,
// but 32 MiB for a few cores is what most machines have, and of those a quarter is soon taken by others.
constexpr index last_level_cache = 24 << 20;

index elements_of(const Shape& s) { return s.groups * s.rows * s.channels * s.inner; }

// Whether results are streamed: where they and their sources exceed the cache, each row starts at 16 bytes, and a
// second result lies in its cache lines as the first does.
template <typename S>
bool streams(const Shape& s, const Rows& rows, int tensors, const S* out, const S* second_out = nullptr) {
    const auto place = [](const S* p) { return reinterpret_cast<std::uintptr_t>(p) % 64; };
    return elements_of(s) * tensors * static_cast<index>(sizeof(S)) > last_level_cache && place(out) % 16 == 0 &&
           (second_out == nullptr || place(second_out) == place(out)) && rows.width * sizeof(S) % 16 == 0;
}

template <typename S> index elements_to_cache_line(const S* p) {
    return static_cast<index>((64 - reinterpret_cast<std::uintptr_t>(p) % 64) % 64 / sizeof(S));
}

// The elements of a row of x, for their sums and for their results: (x - k) * a + b, plus a residual, through a ReLU,
// with the bits of what that let through.
template <typename S, bool residual, bool relu> struct ForwardRow : SumsRow<S> {
    const S* added;
    S* y;
    std::uint8_t* active;

    template <typename Call>
    ForwardRow(const Call& call, const Row& row)
        : SumsRow<S>{call.x + row.start}, added(residual ? call.residual + row.start : nullptr),
          y(call.y + row.start), active(call.active ? call.active + row.bits : nullptr) {}

    template <typename V, int M, typename Put>
    BNKIT_INLINE void map(const Values<V, M>& values, V, index i, Put put) const {
        V value = (load<V>(this->x + i) - values.of[K]) * values.of[SCALE] + values.of[SHIFT];
        if (residual) value += load<V>(added + i);
        if (residual && relu && active) put_bits(active, i, lanes<V>(), lanes_above(value, rounds_to_zero<S>));
        if (relu) value = value < V{} ? V{} : value;  // NaN stays
        put.put(y + i, value);
    }
};

template <typename S> struct MomentsKernel : Sums<S> {
    static constexpr int map_values = 1;
    const MomentsOf<S>& call;
    Lines<Wide<S>, 1> lines;

    explicit MomentsKernel(const MomentsOf<S>& m) : Sums<S>{m.shape, m.x}, call(m), lines(channels_of(m.shape)) {}

    bool maps() const { return false; }
    index to_cache_line(index) const { return 0; }
    SumsRow<S> at(const Row& row) const { return {call.x + row.start}; }

    void begin(index channel, index count) {
        set_near_means(call.shape, call.x, lines, channel, count);
    }

    void finish(index channel, index count, const double* first, const double* second) {
        this->set_moments(lines, channel, count, first, second, call.mean, call.m2, nullptr, 0);
    }
};

template <typename S, bool residual, bool relu> struct TrainKernel : Sums<S> {
    using A = Wide<S>;
    static constexpr int map_values = 3;
    const Train<S>& call;
    Lines<A, 3> lines;

    explicit TrainKernel(const Train<S>& t) : Sums<S>{t.shape, t.x}, call(t), lines(channels_of(t.shape)) {}

    bool maps() const { return true; }
    index to_cache_line(index i) const { return elements_to_cache_line(call.y + i); }

    void begin(index channel, index count) {
        set_near_means(call.shape, call.x, lines, channel, count);
    }

    void finish(index channel, index count, const double* first, const double* second) {
        const double n = count_of(call.shape);
        this->set_moments(lines, channel, count, first, second, call.mean, call.m2, call.rstd, call.eps);
        set_affine(lines, channel, count, call.mean, call.rstd, call.gamma, call.beta);
        if (!call.running_mean) return;
        const double keep = call.decay, take = 1 - call.decay, left = n - call.correction;
        for (index c = channel; c < channel + count; ++c) {
            call.running_mean[c] = static_cast<A>(keep * call.running_mean[c] + take * call.mean[c]);
        }
        for (index c = channel; left > 0 && c < channel + count; ++c) {
            call.running_var[c] = static_cast<A>(keep * call.running_var[c] + take * (call.m2[c] / left));
        }
    }

    ForwardRow<S, residual, relu> at(const Row& row) const { return {call, row}; }
};

template <typename S, bool residual, bool relu> struct InferenceKernel {
    using Storage = S;
    using Arithmetic = Wide<S>;
    static constexpr int term_values = 3, map_values = 3;
    const Inference<S>& call;
    Lines<Arithmetic, 3> lines;

    explicit InferenceKernel(const Inference<S>& f) : call(f), lines(channels_of(f.shape)) {}

    bool maps() const { return true; }
    index to_cache_line(index i) const { return elements_to_cache_line(call.y + i); }

    void begin(index channel, index count) {
        set_affine(lines, channel, count, call.mean, call.rstd, call.gamma, call.beta);
    }

    ForwardRow<S, residual, relu> at(const Row& row) const { return {call, row}; }
};

// How the backward knows where a ReLU let through: there was none, by x, or by the forward's bits.
enum class Gate { open, by_x, by_bits };

template <typename S, Gate gate> struct BackwardRow {
    const S *x, *dy;
    const std::uint8_t* active;
    S *dx, *dresidual;
    const bool train;

    BackwardRow(const Backward<S>& call, const Row& row)
        : x(call.x + row.start), dy(call.dy + row.start),
          active(gate == Gate::by_bits ? call.active + row.bits : nullptr), dx(call.dx + row.start),
          dresidual(call.dresidual ? call.dresidual + row.start : nullptr), train(call.train) {}

    template <typename V, int M> BNKIT_INLINE V let_through(const Values<V, M>& values, V d, index i) const {
        const V gradient = load<V>(dy + i);
        if constexpr (gate == Gate::by_bits) return where(get_bits(active, i, lanes<V>()), gradient);
        else if constexpr (gate == Gate::by_x) {
            return d * values.of[SCALE] + values.of[SHIFT] > V{} + rounds_to_zero<S> ? gradient : V{};
        } else return gradient;
    }

    template <typename V, int M> BNKIT_INLINE Pair<V> term(const Values<V, M>& values, V, index i) const {
        const V d = load<V>(x + i) - values.of[K], g = let_through(values, d, i);
        return {g, g * d};
    }

    template <typename V, typename Put> BNKIT_INLINE void map(const Values<V, 5>& values, V, index i, Put put) const {
        const V d = load<V>(x + i) - values.of[K], g = let_through(values, d, i);
        const V through_statistics = train ? d * values.of[SLOPE] + values.of[OFFSET] : V{};
        if (dresidual) put.put(dresidual + i, g);
        put.put(dx + i, (g + through_statistics) * values.of[SCALE]);
    }
};

template <typename S, Gate gate> struct BackwardKernel {
    using Storage = S;
    using Arithmetic = Wide<S>;
    using A = Arithmetic;
    static constexpr int term_values = gate == Gate::by_x ? 3 : 1, map_values = 5;
    const Backward<S>& call;
    Lines<A, 5> lines;

    explicit BackwardKernel(const Backward<S>& b) : call(b), lines(channels_of(b.shape)) {}

    bool maps() const { return call.dx != nullptr; }
    index to_cache_line(index i) const { return elements_to_cache_line(call.dx + i); }

    void begin(index channel, index count) {
        set_affine(lines, channel, count, call.mean, call.rstd, call.gamma, call.beta);
    }

    void fetch(index i) const {
        prefetch(call.x + i);
        prefetch(call.dy + i);
    }

    void finish(index channel, index count, const double* first, const double* second) {
        const A* k = lines.of(K) + channel;
        A *slope = lines.of(SLOPE) + channel, *offset = lines.of(OFFSET) + channel;
        const double all = count_of(call.shape);
        for (index c = 0; c < count; ++c) {
            const index i = channel + c;
            const double rest = call.mean[i] - k[c], rstd = call.rstd[i];
            call.dbeta[i] = first[c];
            call.dgamma[i] = rstd * (second[c] - rest * first[c]);
            const double n = call.count ? call.count[i] : all;
            const double sum = call.sum_dy ? call.sum_dy[i] : call.dbeta[i];
            const double product = call.sum_dy_x_hat ? call.sum_dy_x_hat[i] : call.dgamma[i];
            const double m = -rstd * product / n;
            slope[c] = static_cast<A>(m);
            offset[c] = static_cast<A>(-sum / n - m * rest);
        }
    }

    BackwardRow<S, gate> at(const Row& row) const { return {call, row}; }
};

template <typename S, bool residual, bool relu> void run_train(const Train<S>& t) {
    const Rows rows = rows_of(t.shape);
    TrainKernel<S, residual, relu> kernel(t);
    const bool streamed = streams(t.shape, rows, residual ? 3 : 2, t.y);
    Walk<decltype(kernel)>(t.shape, rows, kernel, residual && relu, streamed).reduce_and_map();
}

template <typename S> bool train(const Train<S>& t) {
    if (t.residual) t.relu ? run_train<S, true, true>(t) : run_train<S, true, false>(t);
    else t.relu ? run_train<S, false, true>(t) : run_train<S, false, false>(t);
    return fits(channels_of(t.shape), t.rstd, t.gamma);
}

template <typename S, bool residual, bool relu> void run_inference(const Inference<S>& f) {
    // Runs read memory as it lies, however short; but bits are laid out as in training, for the one backward.
    const Rows rows = f.shape.inner > 1 && !f.active ? runs_of(f.shape) : rows_of(f.shape);
    InferenceKernel<S, residual, relu> kernel(f);
    const bool exact_tail = f.active || f.y == f.x, streamed = streams(f.shape, rows, residual ? 3 : 2, f.y);
    Walk<decltype(kernel)>(f.shape, rows, kernel, exact_tail, streamed).map();
}

template <typename S> bool inference(const Inference<S>& f) {
    if (!fits(channels_of(f.shape), f.rstd, f.gamma)) return false;
    if (f.residual) f.relu ? run_inference<S, true, true>(f) : run_inference<S, true, false>(f);
    else f.relu ? run_inference<S, false, true>(f) : run_inference<S, false, false>(f);
    return true;
}

template <typename S> void moments(const MomentsOf<S>& m) {
    const Rows rows = rows_of(m.shape);
    MomentsKernel<S> kernel(m);
    Walk<decltype(kernel)>(m.shape, rows, kernel, false, false).reduce_and_map();
}

template <typename S, Gate gate> void run_backward(const Backward<S>& b) {
    const Rows rows = rows_of(b.shape);
    BackwardKernel<S, gate> kernel(b);
    const bool exact_tail = b.dx == b.dy;
    const bool streamed = streams(b.shape, rows, b.dresidual ? 4 : 3, b.dx, b.dresidual);
    Walk<decltype(kernel)>(b.shape, rows, kernel, exact_tail, streamed).reduce_and_map();
}

template <typename S> bool backward(const Backward<S>& b) {
    if (!fits(channels_of(b.shape), b.rstd, b.gamma)) return false;
    if (b.active) run_backward<S, Gate::by_bits>(b);
    else b.relu ? run_backward<S, Gate::by_x>(b) : run_backward<S, Gate::open>(b);
    return true;
}

template <typename S> constexpr Kernels<S> kernels() { return {&train<S>, &inference<S>, &moments<S>, &backward<S>}; }

}  // namespace

const Level level = {kernels<float>(), kernels<double>(), kernels<Half>(), kernels<BFloat16>()};

}  // namespace BNKIT_LEVEL
}  // namespace bnkit
