// Products with matrices most of whose elements are 0.
#pragma once

#include <cstddef>

namespace bnkit {

using index = std::ptrdiff_t;

// y = a @ b for each of `replicas`: a is (rows, inner), b (inner, columns) and y (rows, columns), b and y C contiguous.
template <typename A> struct Product {
    index replicas, rows, inner, columns;
    const A* a;
    bool shared;      // one a for all replicas
    bool transposed;  // a's columns are contiguous, not its rows
    const A* b;
    A* y;
    bool* done;  // of each replica, whether its y was written
};

// The products as compiled for one SIMD level. Not done are those where a has too few zeros to gain by, and those where
// b is not finite all over, since infinity and NaN show in what meets them times 0.
struct Products {
    void (*f32)(const Product<float>&);
    void (*f64)(const Product<double>&);
};

#if defined(BNKIT_X86_LEVELS)
namespace v2 { extern const Products products; }
namespace v3 { extern const Products products; }
namespace v4 { extern const Products products; }
#else
namespace generic { extern const Products products; }
#endif

}  // namespace bnkit
