// Batch-norm kernels over the view (groups, rows, channels, inner), C contiguous; statistics are (groups, channels).
#pragma once

#include <cstddef>

namespace bnkit {

using index = std::ptrdiff_t;

struct Shape {
    index groups, rows, channels, inner;
};

template <typename T> struct Train {
    Shape shape;
    const T *x, *gamma, *beta;      // gamma and beta may be null
    T *running_mean, *running_var;  // both or neither
    T* y;
    double *mean, *m2, *rstd;
    double decay, eps;
    int correction;
    bool relu;
};

template <typename T> struct Inference {
    Shape shape;
    const T *x, *gamma, *beta, *mean, *var;
    T* y;
    double eps;
    bool relu;
};

template <typename T> struct Backward {
    Shape shape;
    const T *dy, *x, *gamma, *beta;
    const double *mean, *rstd;
    T *dx, *dgamma, *dbeta;
    bool train, relu;  // train: the statistics came from x
};

template <typename T> struct Kernels {
    void (*train)(const Train<T>&);
    void (*inference)(const Inference<T>&);
    void (*backward)(const Backward<T>&);
};

// The kernels as compiled for one SIMD level.
struct Level {
    Kernels<float> f32;
    Kernels<double> f64;

    template <typename T> const Kernels<T>& of() const;
};

template <> inline const Kernels<float>& Level::of<float>() const { return f32; }
template <> inline const Kernels<double>& Level::of<double>() const { return f64; }

#if defined(BNKIT_X86_LEVELS)
namespace v2 { extern const Level level; }
namespace v3 { extern const Level level; }
namespace v4 { extern const Level level; }
#else
namespace generic { extern const Level level; }
#endif

}  // namespace bnkit
