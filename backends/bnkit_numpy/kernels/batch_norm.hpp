// Batch-norm kernels over a C-contiguous view (groups, rows, channels, inner); statistics are (groups, channels).
#pragma once

#include <cstddef>
#include <cstdint>

#include "storage.hpp"

namespace bnkit {

using index = std::ptrdiff_t;

struct Shape {
    index groups, rows, channels, inner;
};

// A kernel returns whether its arithmetic is wide enough for the channels. If it is not, y is wrong or not written; in
// training, the statistics and the running arrays are right.
//
// The pointers of optional arrays may be null. The bits of `active` say where the ReLU was active, in whole bytes for
// each row of the plan (plan.hpp).
template <typename S> struct Train {
    Shape shape;
    const S *x, *residual;
    const Wide<S> *gamma, *beta;
    Wide<S> *running_mean, *running_var;
    S* y;
    std::uint8_t* active;
    double *mean, *m2, *rstd;
    double decay, eps;
    int correction;
    bool relu;
};

template <typename S> struct Inference {
    Shape shape;
    const S *x, *residual;
    const Wide<S> *gamma, *beta;
    const double *mean, *rstd;
    S* y;
    std::uint8_t* active;
    bool relu;
};

template <typename S> struct MomentsOf {
    Shape shape;
    const S* x;
    double *mean, *m2, *rstd;  // rstd: may be null
    double eps;
};

// With count, sum_dy and sum_dy_x_hat, dx uses these sums over `count` elements instead of the sums of this call.
template <typename S> struct Backward {
    Shape shape;
    const S *dy, *x;
    const Wide<S> *gamma, *beta;
    const double *mean, *rstd;
    const std::uint8_t* active;
    const double *count, *sum_dy, *sum_dy_x_hat;
    S *dx, *dresidual;
    double *dbeta, *dgamma;  // the sums
    bool train, relu;        // train: the statistics are those of x
};

template <typename S> struct Kernels {
    bool (*train)(const Train<S>&);
    bool (*inference)(const Inference<S>&);
    void (*moments)(const MomentsOf<S>&);
    bool (*backward)(const Backward<S>&);
};

// The kernels, compiled for one SIMD level.
struct Level {
    Kernels<float> f32;
    Kernels<double> f64;
    Kernels<Half> f16;
    Kernels<BFloat16> bf16;
};

#if defined(BNKIT_X86_LEVELS)
namespace v2 { extern const Level level; }
namespace v3 { extern const Level level; }
namespace v4 { extern const Level level; }
#else
namespace generic { extern const Level level; }
#endif

}  // namespace bnkit
