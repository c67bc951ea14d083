// The step of an optimizer over arrays of one shape, C contiguous.
#pragma once

#include <cstddef>

#include "rule.cuh"

namespace bnkit {

using index = std::ptrdiff_t;

// How many decays weigh what a rule remembers.
static constexpr int decays_of(Rule rule) { return rule == Rule::adagrad ? 0 : memories_of(rule); }

template <typename A> struct OptimizerStep {
    index entries, length;  // how many have a learning rate of their own, and the elements of each
    A* p;
    const A* g;
    A *first, *second;        // what the rule remembers
    const A* rates;           // of the entries; null where `lr` is that of all
    double lr, decays[2], corrections[2];  // corrections: 1 - decay^step
    double eps, weight_decay;
};

// The steps as compiled for one SIMD level.
struct Optimizers {
    void (*f32)(Rule, const OptimizerStep<float>&);
    void (*f64)(Rule, const OptimizerStep<double>&);
};

#if defined(BNKIT_X86_LEVELS)
namespace v2 { extern const Optimizers optimizers; }
namespace v3 { extern const Optimizers optimizers; }
namespace v4 { extern const Optimizers optimizers; }
#else
namespace generic { extern const Optimizers optimizers; }
#endif

}  // namespace bnkit
