// A task has a range of rows. For each row it computes the largest logit, the exponentials and their sum, then loss and
// gradient, all in double. It reads the logits once from memory and writes the gradient. The exponentials dominate the
// time, so there is one version for all SIMD levels.

#include "softmax.hpp"

#include <cmath>
#include <vector>

#include "plan.hpp"
#include "simd.hpp"
#include "threads.hpp"

namespace bnkit {
namespace {

using namespace BNKIT_LEVEL;

template <typename S> class RowOp {
  public:
    explicit RowOp(const SoftmaxCrossEntropy<S>& call) : call_(call) {}

    // Writes the gradient of a row, counted through all groups, and returns its loss.
    double operator()(index row, double* exponentials) const {
        const index classes = call_.classes, of_target = call_.shared ? row % call_.rows : row;
        const S* z = call_.logits + row * classes;
        const Wide<S>* weights = call_.weights ? call_.weights + of_target * classes : nullptr;
        const index label = call_.labels ? static_cast<index>(call_.labels[of_target]) : -1;
        double largest = at(z, 0), sum = 0, loss = 0, weight = weights ? 0 : label >= 0 && label < classes;
        for (index c = 1; c < classes; ++c) largest = at(z, c) > largest || std::isnan(at(z, c)) ? at(z, c) : largest;
        for (index c = 0; c < classes; ++c) sum += exponentials[c] = std::exp(at(z, c) - largest);
        const double log_sum = std::log(sum);
        for (index c = 0; weights && c < classes; ++c) weight += weights[c];
        for (index c = 0; c < classes; ++c) {
            const double target = weights ? static_cast<double>(weights[c]) : c == label;
            if (target != 0) loss -= target * (at(z, c) - largest - log_sum);
            const double gradient = (exponentials[c] / sum * weight - target) / static_cast<double>(call_.rows);
            store(call_.gradient + row * classes + c, static_cast<Wide<S>>(gradient));
        }
        return loss;
    }

  private:
    static double at(const S* z, index c) { return load<Wide<S>>(z + c); }

    const SoftmaxCrossEntropy<S>& call_;
};

}  // namespace

template <typename S> void softmax_cross_entropy(const SoftmaxCrossEntropy<S>& call) {
    const RowOp<S> rows(call);
    const index total = call.groups * call.rows;
    std::vector<double> losses(static_cast<std::size_t>(total));
    const index parts = softmax_tasks(total, call.classes);
    const auto work = [&](index part) {
        std::vector<double> exponentials(static_cast<std::size_t>(call.classes));
        for (index r = part * total / parts; r < (part + 1) * total / parts; ++r) {
            losses[r] = rows(r, exponentials.data());
        }
    };
    in_parallel(parts, work);
    for (index g = 0; g < call.groups; ++g) {
        double sum = 0;
        for (index r = 0; r < call.rows; ++r) sum += losses[g * call.rows + r];
        call.loss[g] = sum / static_cast<double>(call.rows);
    }
}

template void softmax_cross_entropy(const SoftmaxCrossEntropy<float>&);
template void softmax_cross_entropy(const SoftmaxCrossEntropy<double>&);
template void softmax_cross_entropy(const SoftmaxCrossEntropy<Half>&);
template void softmax_cross_entropy(const SoftmaxCrossEntropy<BFloat16>&);

}  // namespace bnkit
