// The Python module: arrays in, kernels of the chosen level, arrays out.

#include "arrays.hpp"

#include <nanobind/stl/array.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cmath>
#include <vector>

#include "chosen.hpp"
#include "optimizer_arrays.hpp"
#include "plain.hpp"
#include "plan.hpp"
#include "product_arrays.hpp"
#include "records.hpp"
#include "softmax.hpp"
#include "threads.hpp"

namespace bnkit {
namespace {

template <typename S> const Kernels<S>& kernels();
template <> const Kernels<float>& kernels() { return chosen->level->f32; }
template <> const Kernels<double>& kernels() { return chosen->level->f64; }
template <> const Kernels<Half>& kernels() { return chosen->level->f16; }
template <> const Kernels<BFloat16>& kernels() { return chosen->level->bf16; }

// Calls call(S{}) with the type that x is stored in.
template <typename Call> nb::object for_storage(nb::handle x, Call call) {
    if (!PyArray_Check(x.ptr())) throw nb::type_error("x is no array");
    PyArrayObject* const array = as_array(x);
    if (has_type<float>(array)) return call(float{});
    if (has_type<double>(array)) return call(double{});
    if (has_type<Half>(array)) return call(Half{});
    if (has_type<BFloat16>(array)) return call(BFloat16{});
    throw nb::type_error("x is of a wrong type");
}

index size_of(const Shape& s) { return s.groups * s.rows * s.channels * s.inner; }

double* new_statistics(const Shape& s, nb::object& array) {
    array = new_array<double>(s.groups, s.channels);
    return static_cast<double*>(PyArray_DATA(as_array(array)));
}

nb::object new_count(const Shape& s) {
    nb::object count;
    double* values = new_statistics(s, count);
    const double n = static_cast<double>(s.rows) * static_cast<double>(s.inner);
    for (index c = 0; c < s.groups * s.channels; ++c) values[c] = n;
    return count;
}

// Zero, so that the bits which no element has are the same in every run.
nb::object new_active(const Shape& s, bool wanted) {
    if (!wanted) return nb::none();
    npy_intp size[] = {active_bytes(s)};
    return owned(PyArray_ZEROS(1, size, NPY_UINT8, 0));
}

// These four return None where the kernel's arithmetic is not wide enough (batch_norm.hpp).
nb::object train(const nb::tuple& args) {
    return for_storage(args[0], [&](auto storage) {
        using S = decltype(storage);
        using A = Wide<S>;
        const auto [x, gamma, beta, running_mean, running_var, decay, eps, correction, mask, residual, activation,
                    out] = fields<12>(args);
        const bool relu = !activation.is_none();
        const Shape s = shape_of(x);
        const index size = size_of(s), channels = s.groups * s.channels;
        const nb::object y = out_or_new(out, x), active = new_active(s, relu && !residual.is_none());
        nb::object mean, m2, rstd;
        const Train<S> call{s,
                            elements<S>("x", x, size),
                            elements_or_null<S>("residual", residual, size),
                            elements_or_null<A>("gamma", gamma, channels),
                            elements_or_null<A>("beta", beta, channels),
                            written_or_null<A>("running_mean", running_mean, channels),
                            written_or_null<A>("running_var", running_var, channels),
                            written<S>("out", y, size),
                            elements_or_null<std::uint8_t>("active", active, active_bytes(s)),
                            new_statistics(s, mean),
                            new_statistics(s, m2),
                            new_statistics(s, rstd),
                            nb::cast<double>(decay),
                            nb::cast<double>(eps),
                            nb::cast<int>(correction),
                            relu};
        bool served = false;
        without_gil([&] { served = kernels<S>().train(call); });
        if (!served) return nb::object(nb::none());
        return records().train(y, records().moments(new_count(s), mean, m2), rstd, active);
    });
}

// Where the variance comes in float32 or in float64, and the mean with it.
void widen(const char* name, nb::handle from, double* to, index count) {
    if (PyArray_Check(from.ptr()) && PyArray_TYPE(as_array(from)) == NPY_FLOAT) {
        const float* values = elements<float>(name, from, count);
        for (index c = 0; c < count; ++c) to[c] = values[c];
    } else {
        const double* values = elements<double>(name, from, count);
        for (index c = 0; c < count; ++c) to[c] = values[c];
    }
}

nb::object inference(const nb::tuple& args) {
    return for_storage(args[0], [&](auto storage) {
        using S = decltype(storage);
        using A = Wide<S>;
        const auto [x, gamma, beta, mean, var, eps, residual, activation, out] = fields<9>(args);
        const bool relu = !activation.is_none();
        const Shape s = shape_of(x);
        const index size = size_of(s), channels = s.groups * s.channels;
        const nb::object y = out_or_new(out, x), active = new_active(s, relu && !residual.is_none());
        std::vector<double> statistics(2 * static_cast<std::size_t>(channels));
        double *means = statistics.data(), *rstds = means + channels;
        widen("mean", mean, means, channels);
        widen("var", var, rstds, channels);
        const double added = nb::cast<double>(eps);
        for (index c = 0; c < channels; ++c) rstds[c] = 1 / std::sqrt(rstds[c] + added);
        const Inference<S> call{s,
                                elements<S>("x", x, size),
                                elements_or_null<S>("residual", residual, size),
                                elements_or_null<A>("gamma", gamma, channels),
                                elements_or_null<A>("beta", beta, channels),
                                means,
                                rstds,
                                written<S>("out", y, size),
                                elements_or_null<std::uint8_t>("active", active, active_bytes(s)),
                                relu};
        bool served = false;
        without_gil([&] { served = kernels<S>().inference(call); });
        if (!served) return nb::object(nb::none());
        return nb::object(nb::make_tuple(y, active));
    });
}

nb::object moments(const nb::tuple& args) {
    return for_storage(args[0], [&](auto storage) {
        using S = decltype(storage);
        const auto [x, mask] = fields<2>(args);
        const Shape s = shape_of(x);
        nb::object mean, m2;
        const MomentsOf<S> call{s, elements<S>("x", x, size_of(s)), new_statistics(s, mean), new_statistics(s, m2),
                                nullptr, 0};
        without_gil([&] { kernels<S>().moments(call); });
        return records().moments(new_count(s), mean, m2);
    });
}

template <typename S>
Backward<S> backward_call(const Shape& s, nb::handle dy, nb::handle x, nb::handle gamma, nb::handle beta,
                          nb::handle mean, nb::handle rstd, nb::handle active, bool relu) {
    using A = Wide<S>;
    const index size = size_of(s), channels = s.groups * s.channels;
    Backward<S> call{};
    call.shape = s;
    call.dy = elements<S>("dy", dy, size);
    call.x = elements<S>("x", x, size);
    call.gamma = elements_or_null<A>("gamma", gamma, channels);
    call.beta = elements_or_null<A>("beta", beta, channels);
    call.mean = elements<double>("mean", mean, channels);
    call.rstd = elements<double>("rstd", rstd, channels);
    call.active = elements_or_null<std::uint8_t>("active", active, active_bytes(s));
    call.relu = relu;
    return call;
}

nb::object gradient_sums(const nb::tuple& args) {
    return for_storage(args[1], [&](auto storage) {
        using S = decltype(storage);
        const auto [dy, x, gamma, beta, mean, rstd, mask, activation, active] = fields<9>(args);
        const Shape s = shape_of(x);
        Backward<S> call = backward_call<S>(s, dy, x, gamma, beta, mean, rstd, active, !activation.is_none());
        nb::object dbeta, dgamma;
        call.dbeta = new_statistics(s, dbeta);
        call.dgamma = new_statistics(s, dgamma);
        bool served = false;
        without_gil([&] { served = kernels<S>().backward(call); });
        if (!served) return nb::object(nb::none());
        return nb::object(nb::make_tuple(dbeta, dgamma));
    });
}

// In how many rows a group of the view is walked, and how long they are: the bits of `active` begin anew with each.
nb::tuple walked_rows(const std::array<index, 4>& shape) {
    const Rows rows = rows_of({shape[0], shape[1], shape[2], shape[3]});
    return nb::make_tuple(rows.count * (rows.runs ? shape[2] : 1), rows.width);
}

template <typename A> nb::object narrowed(const Shape& s, const double* values) {
    const nb::object array = new_array<A>(s.groups, s.channels);
    A* narrow = static_cast<A*>(PyArray_DATA(as_array(array)));
    for (index c = 0; c < s.groups * s.channels; ++c) narrow[c] = static_cast<A>(values[c]);
    return array;
}

nb::object backward(const nb::tuple& args) {
    return for_storage(args[1], [&](auto storage) {
        using S = decltype(storage);
        const auto [dy, x, gamma, beta, mean, rstd, train, count, sums_of_all, mask, activation, active, residual,
                    out] = fields<14>(args);
        const Shape s = shape_of(x);
        const index size = size_of(s), channels = s.groups * s.channels;
        Backward<S> call = backward_call<S>(s, dy, x, gamma, beta, mean, rstd, active, !activation.is_none());
        const nb::object dx = out_or_new(out, x);
        const nb::object dresidual = nb::cast<bool>(residual) ? out_or_new(nb::none(), x) : nb::none();
        std::vector<double> sums(2 * static_cast<std::size_t>(channels));
        if (!sums_of_all.is_none()) {  // else the kernel counts and adds up by itself
            call.count = elements<double>("count", count, channels);
            call.sum_dy = elements<double>("sums", sums_of_all[0], channels);
            call.sum_dy_x_hat = elements<double>("sums", sums_of_all[1], channels);
        }
        call.dx = written<S>("out", dx, size);
        call.dresidual = elements_or_null<S>("dresidual", dresidual, size);
        call.dbeta = sums.data();
        call.dgamma = sums.data() + channels;
        call.train = nb::cast<bool>(train);
        bool served = false;
        without_gil([&] { served = kernels<S>().backward(call); });
        if (!served) return nb::object(nb::none());
        using A = Wide<S>;
        return records().backward(dx, narrowed<A>(s, call.dgamma), narrowed<A>(s, call.dbeta), dresidual);
    });
}

// logits: (groups, rows, classes); labels or weights: with the groups, or without where they are shared.
nb::object cross_entropy(nb::handle logits, nb::handle labels, nb::handle weights, bool shared) {
    return for_storage(logits, [&](auto storage) {
        using S = decltype(storage);
        if (PyArray_NDIM(as_array(logits)) != 3) throw nb::type_error("logits have not 3 dimensions");
        const npy_intp* n = PyArray_DIMS(as_array(logits));
        const index rows = (shared ? 1 : n[0]) * n[1];
        const nb::object loss = new_array<double>(n[0]), gradient = out_or_new(nb::none(), logits);
        const SoftmaxCrossEntropy<S> call{n[0],
                                          n[1],
                                          n[2],
                                          elements<S>("logits", logits, n[0] * n[1] * n[2]),
                                          elements_or_null<std::int64_t>("labels", labels, rows),
                                          elements_or_null<Wide<S>>("weights", weights, rows * n[2]),
                                          shared,
                                          elements<double>("loss", loss, n[0]),
                                          elements<S>("gradient", gradient, n[0] * n[1] * n[2])};
        without_gil([&] { softmax_cross_entropy(call); });
        return nb::make_tuple(loss, gradient);
    });
}

const char* version() { return BNKIT_VERSION; }

nb::list kernel_levels() {
    nb::list names;
    for (const NamedLevel* level : levels_here()) names.append(level->name);
    return names;
}

const char* kernel_level() { return chosen ? chosen->name : nullptr; }

void* import_numpy() {
    import_array1(nullptr);
    return nullptr;
}

}  // namespace

NB_MODULE(_kernels, m) {
    import_numpy();
    if (PyErr_Occurred()) throw nb::python_error();
    records();
    m.def("version", &version, "The version of bnkit this module was built from.");
    m.def("cpu_level", &cpu_level, "The SIMD level of this machine: an x86-64 level, \"neon\" or \"generic\".");
    m.def("kernel_level", &kernel_level, "The level of the kernels in use; None where none fits this machine.");
    m.def("kernel_levels", &kernel_levels, "The levels of the kernels that this machine runs, best first.");
    m.def("set_threads", &set_threads, nb::arg("count"));
    m.def("get_threads", &get_threads);
    using nb::arg;
    m.def("plain_views", &plain_views, arg("x"), arg("others"), arg("parameters"), arg("copies"), arg("view_shape"),
          arg("parameter_shape"));
    m.def("train", &train, arg("args"));
    m.def("inference", &inference, arg("args"));
    m.def("moments", &moments, arg("args"));
    m.def("gradient_sums", &gradient_sums, arg("args"));
    m.def("backward", &backward, arg("args"));
    m.def("walked_rows", &walked_rows, arg("shape"));
    m.def("softmax_cross_entropy", &cross_entropy, arg("logits"), arg("labels").none(), arg("weights").none(),
          arg("shared"));
    m.def("optimizer_step", &optimizer_step, arg("args"));
    m.def("sparse_product", &sparse_product, arg("a"), arg("b"));
}

}  // namespace bnkit
