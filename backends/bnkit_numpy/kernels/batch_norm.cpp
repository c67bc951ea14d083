// Batch norm on the CPU, compiled once for each SIMD level (BNKIT_LEVEL names it).
//
// The plan decides which part of a tensor a task has, and which part is read twice (plan.hpp). A training forward reads
// x and the residual, and writes y. A backward reads x and dy, and writes dx and the residual's gradient. A ReLU after
// a residual adds one bit for each element. Inference reads x and the residual, and writes y.
//
// The sums are of x - k with a k near the mean, from eight samples, so they are exact in float at any mean. A lane
// makes up to 32 additions in float and continues in double. Results are (x - k) * scale + shift (channel.cuh).

#include "batch_norm.hpp"

#include "moments.hpp"
#include "walk.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

// Whether results can be streamed: they start at a multiple of 16 bytes, and both at the same offset in a cache line.
template <typename S> bool are_aligned(const S* out, const S* second_out) {
    const auto place = [](const S* p) { return reinterpret_cast<std::uintptr_t>(p) % 64; };
    return place(out) % 16 == 0 && (second_out == nullptr || place(second_out) == place(out));
}

// The channels of a training forward, which also move the running statistics.
template <typename S> struct TrainChannels : MomentsChannels<S> {
    using A = Wide<S>;
    const Train<S>& train;

    explicit TrainChannels(const Train<S>& t)
        : MomentsChannels<S>({t.shape, t.x, t.mean, t.m2, t.rstd, t.eps}, 3), train(t) {}

    void finish(index channel, index count, const double* first, const double* second) {
        const Train<S>& t = train;
        MomentsChannels<S>::finish(channel, count, first, second);
        set_affine(this->lines, channel, count, t.mean, t.rstd, t.gamma, t.beta);
        if (!t.running_mean) return;
        const double left = count_of(t.shape) - t.correction;
        for (index c = channel; c < channel + count; ++c) {
            t.running_mean[c] = moved<A>(t.running_mean[c], t.mean[c], t.decay);
        }
        for (index c = channel; left > 0 && c < channel + count; ++c) {
            t.running_var[c] = moved<A>(t.running_var[c], t.m2[c] / left, t.decay);
        }
    }
};

// y = relu((x - k) * scale + shift + residual), and the bits that say where the ReLU is active.
template <typename S, bool residual, bool relu> struct ForwardResults {
    using Storage = S;
    static constexpr int values = 3;
    const S *x, *added;
    S* y;
    std::uint8_t* active;

    ForwardResults at(const Row& row) const {
        return {x + row.start, residual ? added + row.start : nullptr, y + row.start,
                active ? active + row.bits : nullptr};
    }

    const S* out() const { return y; }

    template <typename V, typename Put>
    BNKIT_INLINE void map(const Values<V, values>& channel, V, index i, Put put) const {
        V value = (load<V>(x + i) - channel.of[K]) * channel.of[SCALE] + channel.of[SHIFT];
        if (residual) value += load<V>(added + i);
        if (residual && relu && active) put_bits(active, i, lanes<V>(), lanes_above(value, rounds_to_zero<S>));
        if (relu) value = value < V{} ? V{} : value;  // NaN stays NaN
        put.put(y + i, value);
    }
};

// How the backward knows where the ReLU was active: there was no ReLU, from x, or from the forward's bits.
enum class Gate { open, by_x, by_bits };

// The channels of a backward: from the sums to dbeta, dgamma and the coefficients of dx.
template <typename S> struct GradientChannels {
    using A = Wide<S>;
    const Backward<S>& call;
    Lines<A> lines;

    explicit GradientChannels(const Backward<S>& b) : call(b), lines(5, channels_of(b.shape)) {}

    void begin(index channel, index count) {
        set_affine(lines, channel, count, call.mean, call.rstd, call.gamma, call.beta);
    }

    void finish(index channel, index count, const double* first, const double* second) {
        const A* k = lines.of(K) + channel;
        A *slope = lines.of(SLOPE) + channel, *offset = lines.of(OFFSET) + channel;
        const double all = count_of(call.shape);
        for (index c = 0; c < count; ++c) {
            const index i = channel + c;
            const double rest = call.mean[i] - k[c], rstd = call.rstd[i];
            call.dbeta[i] = first[c];
            call.dgamma[i] = sum_dy_x_hat_of(rest, rstd, first[c], second[c]);
            const double n = call.count ? call.count[i] : all;
            const double sum = call.sum_dy ? call.sum_dy[i] : call.dbeta[i];
            const double product = call.sum_dy_x_hat ? call.sum_dy_x_hat[i] : call.dgamma[i];
            const ThroughStatistics<A> through = through_statistics<A>(rest, rstd, n, sum, product);
            slope[c] = through.slope;
            offset[c] = through.offset;
        }
    }
};

// x - k, and dy where the ReLU was active.
template <typename S, Gate gate> struct Gradient {
    using Storage = S;
    const S *x, *dy;
    const std::uint8_t* active;

    Gradient at(const Row& row) const {
        return {x + row.start, dy + row.start, gate == Gate::by_bits ? active + row.bits : nullptr};
    }

    template <typename V, int M> BNKIT_INLINE Pair<V> load_both(const Values<V, M>& channel, index i) const {
        const V d = load<V>(x + i) - channel.of[K], gradient = load<V>(dy + i);
        if constexpr (gate == Gate::by_bits) return {d, where(get_bits(active, i, lanes<V>()), gradient)};
        else if constexpr (gate == Gate::by_x) {
            const V value = d * channel.of[SCALE] + channel.of[SHIFT];
            return {d, value > V{} + rounds_to_zero<S> ? gradient : V{}};
        } else return {d, gradient};
    }
};

// The terms dy and dy * (x - k).
template <typename S, Gate gate> struct GradientTerms {
    using Storage = S;
    static constexpr int values = gate == Gate::by_x ? 3 : 1;
    Gradient<S, gate> gradient;

    GradientTerms at(const Row& row) const { return {gradient.at(row)}; }

    void fetch(index i) const {
        prefetch(gradient.x + i);
        prefetch(gradient.dy + i);
    }

    template <typename V> BNKIT_INLINE Pair<V> term(const Values<V, values>& channel, V, index i) const {
        const auto [d, g] = gradient.load_both(channel, i);
        return {g, g * d};
    }
};

// dx = (dy + (x - k) * slope + offset) * scale, and the gradient of the residual.
template <typename S, Gate gate> struct BackwardResults {
    using Storage = S;
    static constexpr int values = 5;
    Gradient<S, gate> gradient;
    S *dx, *dresidual;
    bool train;

    BackwardResults at(const Row& row) const {
        return {gradient.at(row), dx + row.start, dresidual ? dresidual + row.start : nullptr, train};
    }

    const S* out() const { return dx; }

    template <typename V, typename Put>
    BNKIT_INLINE void map(const Values<V, values>& channel, V, index i, Put put) const {
        const auto [d, g] = gradient.load_both(channel, i);
        const V through_statistics = train ? d * channel.of[SLOPE] + channel.of[OFFSET] : V{};
        if (dresidual) put.put(dresidual + i, g);
        put.put(dx + i, (g + through_statistics) * channel.of[SCALE]);
    }
};

// Calls use() with the ForwardResults for the call's residual and ReLU.
template <typename S, typename Call, typename Use> void with_results(const Call& call, const Use& use) {
    const auto with = [&](auto residual, auto relu) {
        use(ForwardResults<S, residual.value, relu.value>{call.x, call.residual, call.y, call.active});
    };
    const std::true_type yes;
    const std::false_type no;
    if (call.residual) call.relu ? with(yes, yes) : with(yes, no);
    else call.relu ? with(no, yes) : with(no, no);
}

template <typename S, typename Call> Plan forward_plan(const Call& call, bool sums, bool in_place) {
    const bool bits = call.active != nullptr;
    const bool aligned = are_aligned<S>(call.y, nullptr);
    return plan_of({call.shape, sizeof(S), sums, call.residual ? 3 : 2, bits, in_place, aligned});
}

template <typename S> bool train(const Train<S>& t) {
    TrainChannels<S> channels(t);
    const Plan plan = forward_plan<S>(t, true, false);
    with_results<S>(t, [&](const auto& results) { reduce_and_map(plan, channels, MomentsTerms<S>{t.x}, results); });
    return fits_all(channels_of(t.shape), t.rstd, t.gamma);
}

template <typename S> bool inference(const Inference<S>& f) {
    const index channels = channels_of(f.shape);
    if (!fits_all(channels, f.rstd, f.gamma)) return false;
    Lines<Wide<S>> lines(3, channels);
    set_affine(lines, 0, channels, f.mean, f.rstd, f.gamma, f.beta);
    const Plan plan = forward_plan<S>(f, false, f.y == f.x);
    with_results<S>(f, [&](const auto& results) { map(plan, lines, results); });
    return true;
}

template <typename S> void moments(const MomentsOf<S>& m) {
    MomentsChannels<S> channels(m, 1);
    reduce(plan_of({m.shape, sizeof(S), true, 0, false, false, false}), channels, MomentsTerms<S>{m.x});
}

template <typename S, Gate gate> void run_backward(const Backward<S>& b) {
    GradientChannels<S> channels(b);
    const int tensors = !b.dx ? 0 : b.dresidual ? 4 : 3;
    const Plan plan =
        plan_of({b.shape, sizeof(S), true, tensors, false, b.dx == b.dy, are_aligned<S>(b.dx, b.dresidual)});
    const Gradient<S, gate> gradient{b.x, b.dy, b.active};
    const GradientTerms<S, gate> terms{gradient};
    if (!b.dx) return reduce(plan, channels, terms);
    reduce_and_map(plan, channels, terms, BackwardResults<S, gate>{gradient, b.dx, b.dresidual, b.train});
}

template <typename S> bool backward(const Backward<S>& b) {
    if (!fits_all(channels_of(b.shape), b.rstd, b.gamma)) return false;
    if (b.active) run_backward<S, Gate::by_bits>(b);
    else b.relu ? run_backward<S, Gate::by_x>(b) : run_backward<S, Gate::open>(b);
    return true;
}

template <typename S> constexpr Kernels<S> kernels() { return {&train<S>, &inference<S>, &moments<S>, &backward<S>}; }

}  // namespace

const Level level = {kernels<float>(), kernels<double>(), kernels<Half>(), kernels<BFloat16>()};

}  // namespace BNKIT_LEVEL
}  // namespace bnkit
