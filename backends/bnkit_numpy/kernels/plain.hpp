// The checks and the views of a call whose arrays are as most are, in one place where they cost next to nothing.
#pragma once

#include <algorithm>
#include <cstring>

#include "arrays.hpp"

namespace bnkit {

// See Backend.plain_views: arrays of which none overlaps another.
class PlainArrays {
public:
    bool fits(nb::handle a, int type, int ndim, const npy_intp* shape) {
        if (a.is_none()) return true;
        if (!PyArray_CheckExact(a.ptr()) || count == most) return false;
        PyArrayObject* const array = as_array(a);
        if (PyArray_TYPE(array) != type || !PyArray_ISCARRAY(array) || PyArray_NDIM(array) != ndim) return false;
        if (!std::equal(shape, shape + ndim, PyArray_DIMS(array))) return false;
        const char* start = PyArray_BYTES(array);
        const char* stop = start + PyArray_NBYTES(array);
        for (int i = 0; i < count; ++i) {
            if (start < stops[i] && starts[i] < stop) return false;
        }
        starts[count] = start;
        stops[count++] = stop;
        return true;
    }

private:
    static constexpr int most = 8;
    const char *starts[most], *stops[most];
    int count = 0;
};

// The elements of an array that fits, in a shape of as many.
inline nb::object view_of(nb::handle a, int ndim, const npy_intp* shape) {
    if (a.is_none()) return nb::none();
    PyArrayObject* const array = as_array(a);
    if (PyArray_MultiplyList(shape, ndim) != PyArray_SIZE(array)) throw nb::value_error("a view is of a wrong size");
    PyArray_Descr* const dtype = PyArray_DESCR(array);
    Py_INCREF(dtype);
    nb::object view = owned(PyArray_NewFromDescr(&PyArray_Type, dtype, ndim, shape, nullptr, PyArray_DATA(array),
                                                 NPY_ARRAY_CARRAY, nullptr));
    Py_INCREF(a.ptr());
    if (PyArray_SetBaseObject(as_array(view), a.ptr()) != 0) throw nb::python_error();
    return view;
}

inline nb::object copy_of(nb::handle a, int ndim, const npy_intp* shape) {
    if (a.is_none()) return nb::none();
    PyArrayObject* const array = as_array(a);
    if (PyArray_MultiplyList(shape, ndim) != PyArray_SIZE(array)) throw nb::value_error("a copy is of a wrong size");
    nb::object copy = owned(PyArray_SimpleNew(ndim, shape, PyArray_TYPE(array)));
    std::memcpy(PyArray_DATA(as_array(copy)), PyArray_DATA(array), static_cast<std::size_t>(PyArray_NBYTES(array)));
    return copy;
}

struct Dimensions {
    int ndim = 0;
    npy_intp sizes[NPY_MAXDIMS];

    explicit Dimensions(const nb::tuple& shape) {
        if (shape.size() > NPY_MAXDIMS) throw nb::value_error("a shape has too many dimensions");
        for (nb::handle size : shape) sizes[ndim++] = nb::cast<npy_intp>(size);
    }
};

inline nb::object plain_views(nb::handle x, const nb::tuple& others, const nb::tuple& parameters, std::size_t copies,
                              const nb::tuple& view_shape, const nb::tuple& parameter_shape) {
    if (!PyArray_CheckExact(x.ptr()) || !is_stored(as_array(x))) return nb::none();
    const Dimensions view(view_shape), own(parameter_shape);
    if (view.ndim != 4) throw nb::value_error("a view has 4 dimensions");
    const int type = PyArray_TYPE(as_array(x)), ndim = PyArray_NDIM(as_array(x));
    const npy_intp *shape = PyArray_DIMS(as_array(x)), flat[] = {view.sizes[0], view.sizes[2]};
    PlainArrays arrays;
    bool plain = arrays.fits(x, type, ndim, shape);
    for (nb::handle a : others) plain = plain && arrays.fits(a, type, ndim, shape);
    const int wide = type == NPY_DOUBLE ? NPY_DOUBLE : NPY_FLOAT;
    for (nb::handle a : parameters) plain = plain && arrays.fits(a, wide, own.ndim, own.sizes);
    if (!plain) return nb::none();

    PyObject* const views = PyTuple_New(static_cast<Py_ssize_t>(1 + others.size() + parameters.size()));
    if (views == nullptr) throw nb::python_error();
    const nb::object result = nb::steal(views);
    Py_ssize_t i = 0;
    const auto add = [&](nb::object view) { PyTuple_SET_ITEM(views, i++, view.release().ptr()); };
    add(view_of(x, 4, view.sizes));
    for (nb::handle a : others) add(view_of(a, 4, view.sizes));
    for (nb::handle a : parameters) add(copies > 0 ? (--copies, copy_of(a, 2, flat)) : view_of(a, 2, flat));
    return result;
}

}  // namespace bnkit
