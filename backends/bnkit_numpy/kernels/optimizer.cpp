// The optimizer step. A task has a range of the flat arrays. It reads parameters, gradient and state once, and writes
// all but the gradient in place.
//
// The file is compiled without fused operations, so each operation is rounded separately (rule.cuh), and the bits of an
// element do not depend on the level, the threads or its place in the array. The compiler vectorizes the plain loops,
// also the square roots.

#include "optimizer.hpp"

#include "plan.hpp"
#include "simd.hpp"
#include "threads.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

template <typename A> Factors<A> factors_of(const OptimizerStep<A>& call) {
    Factors<A> f;
    for (int i = 0; i < 2; ++i) {
        f.decay[i] = static_cast<A>(call.decays[i]);
        f.take[i] = static_cast<A>(1 - call.decays[i]);
        f.correction[i] = static_cast<A>(call.corrections[i]);
    }
    f.eps = static_cast<A>(call.eps);
    return f;
}

// Updates n elements of one entry. The arrays do not overlap. Those that the rule lacks are null.
template <Rule rule, typename A>
void move(A* __restrict p, const A* __restrict g, A* __restrict first, A* __restrict second, index n, A lr, A keep,
          const Factors<A> f) {
    constexpr int memories = memories_of(rule);
    for (index i = 0; i < n; ++i) {
        A param = p[i] * keep, one{}, two{};
        if constexpr (memories > 0) one = first[i];
        if constexpr (memories > 1) two = second[i];
        step<rule>(param, g[i], one, two, lr, f);
        p[i] = param;
        if constexpr (memories > 0) first[i] = one;
        if constexpr (memories > 1) second[i] = two;
    }
}

template <Rule rule, typename A> void run(const OptimizerStep<A>& call) {
    const index size = call.entries * call.length, each = optimizer_task(size);
    const Factors<A> factors = factors_of(call);
    const auto from = [](A* a, index i) { return a ? a + i : nullptr; };
    const auto work = [&](index task) {
        const index stop = smaller((task + 1) * each, size);
        for (index i = task * each, next; i < stop; i = next) {
            const index entry = i / call.length;
            next = smaller((entry + 1) * call.length, stop);
            const A lr = call.rates ? call.rates[entry] : static_cast<A>(call.lr);
            const A keep = call.rates ? A{1} - lr * static_cast<A>(call.weight_decay)
                                      : static_cast<A>(1 - call.lr * call.weight_decay);
            move<rule>(call.p + i, call.g + i, from(call.first, i), from(call.second, i), next - i, lr, keep, factors);
        }
    };
    in_parallel((size + each - 1) / each, work);
}

template <typename A> void choose(Rule rule, const OptimizerStep<A>& call) {
    switch (rule) {
    case Rule::sgd: return run<Rule::sgd>(call);
    case Rule::momentum: return run<Rule::momentum>(call);
    case Rule::nesterov: return run<Rule::nesterov>(call);
    case Rule::adagrad: return run<Rule::adagrad>(call);
    case Rule::rmsprop: return run<Rule::rmsprop>(call);
    case Rule::adam: return run<Rule::adam>(call);
    }
}

}  // namespace

const Optimizers optimizers = {&choose<float>, &choose<double>};

}  // namespace BNKIT_LEVEL
}  // namespace bnkit
