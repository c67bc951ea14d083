// NumPy arrays by NumPy's C interface, because conversions would show in a call of several microseconds.
#pragma once

#include <nanobind/nanobind.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include <array>
#include <string>

#include "batch_norm.hpp"

namespace bnkit {

namespace nb = nanobind;

template <typename T> struct TypeNumber;
template <> struct TypeNumber<float> { static constexpr int value = NPY_FLOAT; };
template <> struct TypeNumber<double> { static constexpr int value = NPY_DOUBLE; };
template <> struct TypeNumber<Half> { static constexpr int value = NPY_HALF; };
template <> struct TypeNumber<std::uint8_t> { static constexpr int value = NPY_UINT8; };
template <> struct TypeNumber<std::int64_t> { static constexpr int value = NPY_INT64; };

// The fields of an op's record of arguments (bnkit.reference), in its order.
template <std::size_t N> std::array<nb::handle, N> fields(const nb::tuple& args) {
    if (args.size() != N) throw nb::type_error("args is another op's record");
    std::array<nb::handle, N> all;
    for (std::size_t i = 0; i < N; ++i) all[i] = args[i];
    return all;
}

inline PyArrayObject* as_array(nb::handle a) { return reinterpret_cast<PyArrayObject*>(a.ptr()); }

template <typename T> bool has_type(PyArrayObject* a) { return PyArray_TYPE(a) == TypeNumber<T>::value; }

// NumPy has no bfloat16. ml_dtypes registers it at import, so its type number is not known here.
template <> inline bool has_type<BFloat16>(PyArrayObject* a) {
    const PyArray_Descr* dtype = PyArray_DESCR(a);
    return dtype->kind == 'V' && dtype->type == 'E' && PyArray_ITEMSIZE(a) == 2;
}

inline bool is_stored(PyArrayObject* a) {
    return has_type<float>(a) || has_type<double>(a) || has_type<Half>(a) || has_type<BFloat16>(a);
}

// The elements of a C-contiguous array of `size` elements of T. The public functions have checked the arrays of users;
// this check keeps a mistake in bnkit from reading past the end of an array.
template <typename T> T* elements(const char* name, nb::handle a, index size) {
    if (!PyArray_Check(a.ptr()) || !has_type<T>(as_array(a))) {
        throw nb::type_error((std::string(name) + " is of a wrong type").c_str());
    }
    if (!PyArray_ISCARRAY_RO(as_array(a)) || PyArray_SIZE(as_array(a)) != size) {
        throw nb::value_error((std::string(name) + " is of a wrong size or layout").c_str());
    }
    return static_cast<T*>(PyArray_DATA(as_array(a)));
}

// As `elements`, for an array to write to.
template <typename T> T* written(const char* name, nb::handle a, index size) {
    T* const values = elements<T>(name, a, size);
    if (!PyArray_ISWRITEABLE(as_array(a))) throw nb::value_error((std::string(name) + " is read-only").c_str());
    return values;
}

template <typename T> T* written_or_null(const char* name, nb::handle a, index size) {
    return a.is_none() ? nullptr : written<T>(name, a, size);
}

// As `elements`, or null for None.
template <typename T> T* elements_or_null(const char* name, nb::handle a, index size) {
    return a.is_none() ? nullptr : elements<T>(name, a, size);
}

inline nb::object owned(PyObject* a) {
    if (a == nullptr) throw nb::python_error();
    return nb::steal(a);
}

template <typename T> nb::object new_array(index size) {
    npy_intp shape[] = {size};
    return owned(PyArray_SimpleNew(1, shape, TypeNumber<T>::value));
}

template <typename T> nb::object new_array(index rows, index columns) {
    npy_intp shape[] = {rows, columns};
    return owned(PyArray_SimpleNew(2, shape, TypeNumber<T>::value));
}

// `out`, or a new array like x if `out` is None.
inline nb::object out_or_new(nb::handle out, nb::handle x) {
    if (!out.is_none()) return nb::borrow(out);
    return owned(PyArray_NewLikeArray(as_array(x), NPY_CORDER, nullptr, 0));  // never a subclass, even if x is one
}

inline Shape shape_of(nb::handle x) {
    if (!PyArray_Check(x.ptr()) || PyArray_NDIM(as_array(x)) != 4) throw nb::type_error("x is no view of 4 dimensions");
    const npy_intp* n = PyArray_DIMS(as_array(x));
    return {n[0], n[1], n[2], n[3]};
}

}  // namespace bnkit
