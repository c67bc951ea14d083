// Softmax cross-entropy of (groups, rows, classes).
#pragma once

#include <cstdint>

#include "batch_norm.hpp"

namespace bnkit {

// The target is labels or weights, of each group or shared by all; a label that is no class weighs nothing.
template <typename S> struct SoftmaxCrossEntropy {
    index groups, rows, classes;
    const S* logits;
    const std::int64_t* labels;
    const Wide<S>* weights;
    bool shared;
    double* loss;  // the mean over the rows of each group
    S* gradient;
};

template <typename S> void softmax_cross_entropy(const SoftmaxCrossEntropy<S>& call);

}  // namespace bnkit
