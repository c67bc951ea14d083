// One pass over parameters, gradient and what the rule remembers: reads each once, and writes all but the gradient in
// place. A piece of the flat arrays is a task of the threads.
//
// Each operation is rounded by itself (the file is compiled without contraction into fused ones), in the order of
// bnkit/reference/optimizer.py and in the arrays' type: so an element's bits are the reference's, whatever the level, the threads and
// the element's place in its array. Plain loops, since the compiler makes vectors of them, square roots included.

#include "optimizer.hpp"

#include <math.h>

#include "simd.hpp"
#include "threads.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

constexpr index few = 1 << 15;    // elements that one thread does sooner than two
constexpr index piece = 1 << 14;  // elements of a task

inline float root(float a) { return ::sqrtf(a); }
inline double root(double a) { return ::sqrt(a); }

// What the rules multiply by, in the arrays' type as the reference's scalars are.
template <typename A> struct Factors {
    A lr, keep, decay[2], take[2], correction[2], eps;

    Factors(const OptimizerStep<A>& call, index entry)
        : lr(call.rates ? call.rates[entry] : static_cast<A>(call.lr)),
          keep(call.rates ? A{1} - lr * static_cast<A>(call.weight_decay)
                          : static_cast<A>(1 - call.lr * call.weight_decay)),
          eps(static_cast<A>(call.eps)) {
        for (int i = 0; i < 2; ++i) {
            decay[i] = static_cast<A>(call.decays[i]);
            take[i] = static_cast<A>(1 - call.decays[i]);
            correction[i] = static_cast<A>(call.corrections[i]);
        }
    }
};

// n elements of an entry. The arrays are apart in memory.
template <Rule rule, typename A>
void run(const Factors<A> f, A* __restrict p, const A* __restrict g, A* __restrict first, A* __restrict second,
         index n) {
    for (index i = 0; i < n; ++i) {
        const A kept = p[i] * f.keep;
        if constexpr (rule == Rule::sgd) {
            p[i] = kept - f.lr * g[i];
        } else if constexpr (rule == Rule::momentum || rule == Rule::nesterov) {
            const A v = first[i] = first[i] * f.decay[0] + g[i];
            p[i] = kept - f.lr * (rule == Rule::momentum ? v : g[i] + f.decay[0] * v);
        } else if constexpr (rule == Rule::adagrad || rule == Rule::rmsprop) {
            const A square = g[i] * g[i];
            const A h = rule == Rule::adagrad ? first[i] + square : first[i] * f.decay[0] + f.take[0] * square;
            first[i] = h;
            p[i] = kept - f.lr * g[i] / (root(h) + f.eps);
        } else {
            const A m = first[i] = first[i] * f.decay[0] + f.take[0] * g[i];
            const A v = second[i] = second[i] * f.decay[1] + f.take[1] * (g[i] * g[i]);
            p[i] = kept - f.lr * (m / f.correction[0]) / (root(v / f.correction[1]) + f.eps);
        }
    }
}

template <Rule rule, typename A> void step(const OptimizerStep<A>& call) {
    const index size = call.entries * call.length;
    const index each = size <= few ? size : piece;
    const auto at = [](A* a, index i) { return a ? a + i : nullptr; };
    const auto work = [&](index part) {
        const index stop = smaller((part + 1) * each, size);
        for (index i = part * each, next; i < stop; i = next) {
            const index entry = i / call.length;
            next = smaller((entry + 1) * call.length, stop);
            run<rule>(Factors<A>(call, entry), call.p + i, call.g + i, at(call.first, i), at(call.second, i), next - i);
        }
    };
    using Work = decltype(work);
    const auto do_part = [](const void* context, index part) { (*static_cast<const Work*>(context))(part); };
    parallel_for((size + each - 1) / each, false, do_part, &work);
}

template <typename A> void choose(Rule rule, const OptimizerStep<A>& call) {
    switch (rule) {
    case Rule::sgd: return step<Rule::sgd>(call);
    case Rule::momentum: return step<Rule::momentum>(call);
    case Rule::nesterov: return step<Rule::nesterov>(call);
    case Rule::adagrad: return step<Rule::adagrad>(call);
    case Rule::rmsprop: return step<Rule::rmsprop>(call);
    case Rule::adam: return step<Rule::adam>(call);
    }
}

}  // namespace

const Optimizers optimizers = {&choose<float>, &choose<double>};

}  // namespace BNKIT_LEVEL
}  // namespace bnkit
