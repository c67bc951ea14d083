// A product of NumPy arrays, if the kernel supports them.
#pragma once

#include <memory>

#include "arrays.hpp"
#include "chosen.hpp"
#include "plan.hpp"
#include "product.hpp"

namespace bnkit {

// Whether `a` is one dense matrix of A, or several one after the other, by rows or `transposed`.
template <typename A> bool is_dense(PyArrayObject* a, bool transposed) {
    const int n = PyArray_NDIM(a);
    if (!has_type<A>(a) || !PyArray_ISALIGNED(a) || !PyArray_ISNOTSWAPPED(a) || n < 2 || n > 3) return false;
    const npy_intp *shape = PyArray_DIMS(a), *steps = PyArray_STRIDES(a), item = sizeof(A);
    const int inner = transposed ? n - 2 : n - 1, outer = transposed ? n - 1 : n - 2;
    return steps[inner] == item && steps[outer] == item * shape[inner] &&
           (n == 2 || steps[0] == item * shape[1] * shape[2]);
}

// Sets `call` except y; returns false if NumPy must compute or refuse the product.
template <typename A> bool fill(Product<A>& call, PyArrayObject* a, PyArrayObject* b) {
    const bool transposed = !is_dense<A>(a, false);
    if ((transposed && !is_dense<A>(a, true)) || !is_dense<A>(b, false)) return false;
    const int of_a = PyArray_NDIM(a), of_b = PyArray_NDIM(b);
    const npy_intp *m = PyArray_DIMS(a) + (of_a - 2), *n = PyArray_DIMS(b) + (of_b - 2);
    call.replicas = of_b == 3 ? PyArray_DIM(b, 0) : 1;
    call.shared = of_a == 2;
    if (of_a > of_b || m[1] != n[0] || (of_a == 3 && PyArray_DIM(a, 0) != call.replicas)) return false;
    call.rows = m[0];
    call.inner = m[1];
    call.columns = n[1];
    call.a = static_cast<const A*>(PyArray_DATA(a));
    call.transposed = transposed;
    call.b = static_cast<const A*>(PyArray_DATA(b));
    return true;
}

// a @ b and the replicas that NumPy must compute; None if it must compute all.
inline nb::object sparse_product(nb::handle a, nb::handle b) {
    if (!PyArray_Check(a.ptr()) || !PyArray_Check(b.ptr())) return nb::none();
    const auto run = [&](auto type, const auto kernel) -> nb::object {
        using A = decltype(type);
        Product<A> call{};
        if (!fill(call, as_array(a), as_array(b)) || !is_worth_a_search(call.rows, call.inner, call.columns)) {
            return nb::none();
        }
        npy_intp shape[] = {call.replicas, call.rows, call.columns};
        const int dimensions = PyArray_NDIM(as_array(b));
        nb::object y = owned(PyArray_SimpleNew(dimensions, shape + (3 - dimensions), TypeNumber<A>::value));
        const std::unique_ptr<bool[]> done(new bool[static_cast<std::size_t>(call.replicas)]);
        call.y = static_cast<A*>(PyArray_DATA(as_array(y)));
        call.done = done.get();
        without_gil([&] { kernel(call); });
        nb::list left;
        for (index r = 0; r < call.replicas; ++r) {
            if (!done[static_cast<std::size_t>(r)]) left.append(r);
        }
        if (static_cast<index>(left.size()) == call.replicas) return nb::none();
        return nb::make_tuple(y, left);
    };
    if (has_type<float>(as_array(a))) return run(float{}, chosen->products->f32);
    return has_type<double>(as_array(a)) ? run(double{}, chosen->products->f64) : nb::none();
}

}  // namespace bnkit
