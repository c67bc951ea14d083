// The rules of bnkit/reference/optimizer.py for one element: C++17 that NVRTC and the CPU's compiler both read, and
// static on the CPU, as channel.cuh is.
//
// The operations and their order are those of the reference. On the CPU each is rounded by itself, so an element's bits
// are the reference's; a device may fuse a product and a sum.
#pragma once

#if defined(__CUDACC__) || defined(BNKIT_HOST)
#define BNKIT_RULE __device__ __forceinline__
#else
#include <math.h>
#define BNKIT_RULE static inline
#endif

namespace bnkit {

// In the order of bnkit_cupy/launch.py.
enum class Rule { sgd, momentum, nesterov, adagrad, rmsprop, adam };

// How many arrays a rule remembers.
BNKIT_RULE constexpr int memories_of(Rule rule) { return rule == Rule::sgd ? 0 : rule == Rule::adam ? 2 : 1; }

BNKIT_RULE float root(float a) { return sqrtf(a); }
BNKIT_RULE double root(double a) { return sqrt(a); }

// What the rules multiply by, in the arrays' type as the reference's scalars are. correction: 1 - decay^step.
template <typename A> struct Factors {
    A decay[2], take[2], correction[2], eps;  // take: 1 - decay
};

// Moves p, which has been shrunk by the weight decay, and the memories that the rule has.
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
