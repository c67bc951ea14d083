// The kernels of this process's SIMD level, and the release of the GIL while they run.
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

// Best first. A machine with a level also runs the levels after it.
inline const NamedLevel levels[] = {
#if defined(BNKIT_X86_LEVELS)
    {"x86-64-v4", &v4::level, &v4::optimizers, &v4::products},
    {"x86-64-v3", &v3::level, &v3::optimizers, &v3::products},
    {"x86-64-v2", &v2::level, &v2::optimizers, &v2::products},
#else
    {generic_name, &generic::level, &generic::optimizers, &generic::products},
#endif
};

// The levels that this machine can run, best first.
inline std::vector<const NamedLevel*> levels_here() {
    std::vector<const NamedLevel*> runnable;
#if defined(BNKIT_X86_LEVELS)
    bool here = false;
#else
    bool here = true;  // every machine of this architecture runs the only level
#endif
    for (const NamedLevel& level : levels) {
        here = here || std::strcmp(level.name, cpu_level()) == 0;
        if (here) runnable.push_back(&level);
    }
    return runnable;
}

// The level that BNKIT_CPU_LEVEL names, else the best; null if there is none, which Python reports.
inline const NamedLevel* choose_level() {
    const char* wanted = std::getenv("BNKIT_CPU_LEVEL");
    for (const NamedLevel* level : levels_here()) {
        if (wanted == nullptr || *wanted == '\0' || std::strcmp(level->name, wanted) == 0) return level;
    }
    return nullptr;
}

inline const NamedLevel* const chosen = choose_level();

// A finalizing interpreter ends a thread that asks for the GIL. This must not unwind C++ frames, so the thread sleeps
// until the process ends.
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
