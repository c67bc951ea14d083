// The rules of bnkit/reference/optimizer.py for one element: C++17 for NVRTC and for the CPU's compiler, and static on
// the CPU, as in channel.cuh.
//
// The operations and their order are those of the reference. On the CPU each is rounded separately, so the bits are
// those of the reference; a device may fuse a product and a sum.
#pragma once

#if defined(__CUDACC__) || defined(BNKIT_HOST)
#define BNKIT_RULE __device__ __forceinline__
#else
#include <math.h>
#define BNKIT_RULE static inline
#endif

namespace bnkit {

// The order is that of bnkit_cupy/launch.py.
enum class Rule { sgd, momentum, nesterov, adagrad, rmsprop, adam };

// The number of state arrays of a rule.
BNKIT_RULE constexpr int memories_of(Rule rule) { return rule == Rule::sgd ? 0 : rule == Rule::adam ? 2 : 1; }

BNKIT_RULE float root(float a) { return sqrtf(a); }
BNKIT_RULE double root(double a) { return sqrt(a); }

// The factors of the rules, in the type of the arrays as in the reference. correction: 1 - decay^step.
template <typename A> struct Factors {
    A decay[2], take[2], correction[2], eps;  // take: 1 - decay
};

// Updates p, to which the weight decay was applied, and the state arrays of the rule.
template <Rule rule, typename A>
BNKIT_RULE void step(A& p, A g, A& first, A& second, A lr, const Factors<A>& f) {
    if constexpr (rule == Rule::sgd) {
        p -= lr * g;
    } else if constexpr (rule == Rule::momentum || rule == Rule::nesterov) {
        first = first * f.decay[0] + g;
        p -= lr * (rule == Rule::momentum ? first : g + f.decay[0] * first);
    } else if constexpr (rule == Rule::adagrad || rule == Rule::rmsprop) {
        first = rule == Rule::adagrad ? first + g * g : first * f.decay[0] + f.take[0] * (g * g);
        p -= lr * g / (root(first) + f.eps);
    } else {
        first = first * f.decay[0] + f.take[0] * g;
        second = second * f.decay[1] + f.take[1] * (g * g);
        p -= lr * (first / f.correction[0]) / (root(second / f.correction[1]) + f.eps);
    }
}

}  // namespace bnkit
