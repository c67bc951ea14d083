// The kernels of the level that this process uses, and the GIL let go while they run.
#pragma once

#include <Python.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <thread>
#include <vector>

#include "batch_norm.hpp"
#include "cpu_level.hpp"
#include "optimizer.hpp"
#include "product.hpp"

namespace bnkit {

struct NamedLevel {
    const char* name;
    const Level* level;
    const Optimizers* optimizers;
    const Products* products;
};

#if !defined(BNKIT_X86_LEVELS)
#if defined(__aarch64__) && defined(__GNUC__)
constexpr const char* generic_name = "neon";  // part of every ARMv8-A
#else
constexpr const char* generic_name = "generic";
#endif
#endif

// Best first; a level runs on every machine of a better one.
inline const NamedLevel levels[] = {
#if defined(BNKIT_X86_LEVELS)
    {"x86-64-v4", &v4::level, &v4::optimizers, &v4::products},
    {"x86-64-v3", &v3::level, &v3::optimizers, &v3::products},
    {"x86-64-v2", &v2::level, &v2::optimizers, &v2::products},
#else
    {generic_name, &generic::level, &generic::optimizers, &generic::products},
#endif
};

// The levels that this machine runs, best first.
inline std::vector<const NamedLevel*> levels_here() {
    std::vector<const NamedLevel*> found;
#if defined(BNKIT_X86_LEVELS)
    bool here = false;
#else
    bool here = true;  // the one level is what any machine of the kind runs
#endif
    for (const NamedLevel& level : levels) {
        here = here || std::strcmp(level.name, cpu_level()) == 0;
        if (here) found.push_back(&level);
    }
    return found;
}

// The one of them that BNKIT_CPU_LEVEL names, else the best; null where there is none. Python tells what is wrong.
inline const NamedLevel* choose_level() {
    const char* wanted = std::getenv("BNKIT_CPU_LEVEL");
    for (const NamedLevel* level : levels_here()) {
        if (wanted == nullptr || *wanted == '\0' || std::strcmp(level->name, wanted) == 0) return level;
    }
    return nullptr;
}

inline const NamedLevel* const chosen = choose_level();

// A thread that comes back while the interpreter goes down is ended by it, which no C++ frame may see: it sleeps until
// the process is gone.
template <typename Work> void without_gil(const Work& work) {
    PyThreadState* const state = PyEval_SaveThread();
    std::exception_ptr error;
    try {
        work();
    } catch (...) {
        error = std::current_exception();
    }
    try {
        PyEval_RestoreThread(state);
    } catch (...) {
        for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
    if (error) std::rethrow_exception(error);
}

}  // namespace bnkit
