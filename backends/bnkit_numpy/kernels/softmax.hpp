// Softmax cross-entropy of (groups, rows, classes).
#pragma once

#include <cstdint>

#include "batch_norm.hpp"

namespace bnkit {

// The target is labels or weights, for each group or `shared` by all. A label that is no class has weight 0.
template <typename S> struct SoftmaxCrossEntropy {
    index groups, rows, classes;
    const S* logits;
    const std::int64_t* labels;
    const Wide<S>* weights;
    bool shared;
    double* loss;  // for each group, the mean over its rows
    S* gradient;
};

template <typename S> void softmax_cross_entropy(const SoftmaxCrossEntropy<S>& call);

}  // namespace bnkit
