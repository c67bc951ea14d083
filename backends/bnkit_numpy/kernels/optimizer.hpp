// An optimizer step over C-contiguous arrays of one shape.
#pragma once

#include <cstddef>

#include "rule.cuh"

namespace bnkit {

using index = std::ptrdiff_t;

// The number of a rule's decays.
static constexpr int decays_of(Rule rule) { return rule == Rule::adagrad ? 0 : memories_of(rule); }

template <typename A> struct OptimizerStep {
    index entries, length;  // the entries that have one learning rate each, and the elements of an entry
    A* p;
    const A* g;
    A *first, *second;                     // the rule's state
    const A* rates;                        // one for each entry; if null, `lr` holds for all
    double lr, decays[2], corrections[2];  // corrections: 1 - decay^step
    double eps, weight_decay;
};

// The steps, compiled for one SIMD level.
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
