// An optimizer step on NumPy arrays, if the kernel supports them.
#pragma once

#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "chosen.hpp"
#include "optimizer.hpp"

namespace bnkit {

inline const Rule* rule_named(const char* name) {
    static constexpr std::pair<const char*, Rule> rules[] = {
        {"sgd", Rule::sgd},         {"momentum", Rule::momentum}, {"nesterov", Rule::nesterov},
        {"adagrad", Rule::adagrad}, {"rmsprop", Rule::rmsprop},   {"adam", Rule::adam},
    };
    for (const auto& rule : rules) {
        if (std::strcmp(rule.first, name) == 0) return &rule.second;
    }
    return nullptr;
}

// Whether two contiguous arrays share memory.
inline bool meet(PyArrayObject* a, PyArrayObject* b) {
    const char *from = PyArray_BYTES(a), *other = PyArray_BYTES(b);
    return from < other + PyArray_NBYTES(b) && other < from + PyArray_NBYTES(a);
}

// The arrays of a step: p, g, the state arrays, and the rates if there are any.
template <typename A> class StepArrays {
  public:
    StepArrays(nb::handle p, nb::handle g, const std::vector<nb::object>& memory, nb::handle rates) {
        add(p, nullptr, true);
        const nb::handle like = good_ ? p : nb::handle();
        add(g, like, false);
        for (const nb::object& m : memory) add(m, like, true);
        if (!good_ || rates.is_none()) return;
        rates_ = true;
        add(rates, nb::handle(), false);
        good_ = good_ && PyArray_NDIM(all_.back()) == 1 && PyArray_NDIM(all_[0]) > 0 &&
                PyArray_DIM(all_.back(), 0) == PyArray_DIM(all_[0], 0);
    }

    // Whether all are C contiguous, aligned, of one type, without overlap, and writeable if they will be written.
    bool good() const {
        for (std::size_t i = 0; good_ && i < all_.size(); ++i) {
            for (std::size_t j = 0; j < i; ++j) {
                if (meet(all_[i], all_[j])) return false;
            }
        }
        return good_;
    }

    index size() const { return PyArray_SIZE(all_[0]); }
    index entries() const { return rates_ ? PyArray_DIM(all_[0], 0) : 1; }
    A* of(std::size_t i) const { return static_cast<A*>(PyArray_DATA(all_[i])); }
    A* memory(std::size_t i) const { return 2 + i < all_.size() - rates_ ? of(2 + i) : nullptr; }
    const A* rates() const { return rates_ ? of(all_.size() - 1) : nullptr; }

  private:
    void add(nb::handle a, nb::handle like, bool written) {
        good_ = good_ && PyArray_Check(a.ptr()) && has_type<A>(as_array(a)) && PyArray_ISCARRAY_RO(as_array(a)) &&
                (!written || PyArray_ISWRITEABLE(as_array(a))) &&
                (!like.is_valid() || PyArray_SAMESHAPE(as_array(a), as_array(like)));
        if (good_) all_.push_back(as_array(a));
    }

    std::vector<PyArrayObject*> all_;
    bool good_ = true, rates_ = false;
};

// Sets the arrays of `call`; returns false if the reference must do or refuse the step.
template <typename A>
bool fill(OptimizerStep<A>& call, Rule rule, const StepArrays<A>& arrays, std::size_t memories) {
    if (static_cast<int>(memories) != memories_of(rule) || !arrays.good() || arrays.size() == 0) return false;
    call.entries = arrays.entries();
    call.length = arrays.size() / call.entries;
    call.p = arrays.of(0);
    call.g = arrays.of(1);
    call.first = arrays.memory(0);
    call.second = arrays.memory(1);
    call.rates = arrays.rates();
    return true;
}

// Whether the kernel did the step. If not, nothing was written, and the reference does the step or refuses it.
inline bool optimizer_step(const nb::tuple& args) {
    const auto of = fields<9>(args);  // rule, p, g, memory, lr, decays, eps, weight_decay, step
    const auto name = nb::cast<const char*>(of[0]);
    const nb::handle p = of[1], g = of[2], lr = of[4];
    const auto memory = nb::cast<std::vector<nb::object>>(of[3]);
    const auto decays = nb::cast<std::vector<double>>(of[5]);
    const auto eps = nb::cast<double>(of[6]), weight_decay = nb::cast<double>(of[7]), step = nb::cast<double>(of[8]);
    const Rule* const rule = rule_named(name);
    if (rule == nullptr || static_cast<int>(decays.size()) != decays_of(*rule) || !PyArray_Check(p.ptr())) return false;
    const bool shared = PyFloat_Check(lr.ptr());
    const auto run = [&](auto type, const auto kernel) {
        using A = decltype(type);
        OptimizerStep<A> call{};
        const StepArrays<A> arrays(p, g, memory, shared ? nb::handle(Py_None) : lr);
        if (!fill(call, *rule, arrays, memory.size())) return false;
        call.lr = shared ? PyFloat_AS_DOUBLE(lr.ptr()) : 0;
        for (std::size_t i = 0; i < decays.size(); ++i) {
            call.decays[i] = decays[i];
            call.corrections[i] = 1 - std::pow(decays[i], step);
        }
        call.eps = eps;
        call.weight_decay = weight_decay;
        without_gil([&] { kernel(*rule, call); });
        return true;
    };
    if (has_type<float>(as_array(p))) return run(float{}, chosen->optimizers->f32);
    return has_type<double>(as_array(p)) && run(double{}, chosen->optimizers->f64);
}

}  // namespace bnkit
