// The results of the ops as bnkit.reference's own named tuples, whose `__new__` in Python takes 0.2 us.
#pragma once

#include <nanobind/nanobind.h>

namespace bnkit {

namespace nb = nanobind;

// A named tuple's class, alive to the end of the process, since the interpreter may be gone before the module is.
class Record {
public:
    explicit Record(const char* name)
        : type(nb::object(nb::module_::import_("bnkit.reference").attr(name)).release()) {}

    // A new one, as tuple.__new__ makes it.
    template <typename... Values> nb::object operator()(const Values&... values) const {
        auto* const made = reinterpret_cast<PyTypeObject*>(type.ptr());
        PyObject* const record = made->tp_alloc(made, sizeof...(Values));
        if (record == nullptr) throw nb::python_error();
        Py_ssize_t i = 0;
        (PyTuple_SET_ITEM(record, i++, values.inc_ref().ptr()), ...);
        return nb::steal(record);
    }

private:
    nb::handle type;
};

// Found when the module is imported: an import within a call could wait for a thread that waits for this one.
struct Records {
    Record moments{"Moments"}, train{"BatchNormTrain"}, backward{"BatchNormBackward"};
};

inline const Records& records() {
    static const Records found;
    return found;
}

}  // namespace bnkit
