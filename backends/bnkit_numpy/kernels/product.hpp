// Products with sparse matrices.
#pragma once

#include <cstddef>

namespace bnkit {

using index = std::ptrdiff_t;

// y = a @ b for each of `replicas`. a: (rows, inner); b: (inner, columns) and y: (rows, columns), both C contiguous.
template <typename A> struct Product {
    index replicas, rows, inner, columns;
    const A* a;
    bool shared;      // all replicas have the same a
    bool transposed;  // the columns of a are contiguous, not its rows
    const A* b;
    A* y;
    bool* done;  // for each replica, whether its y was written
};

// The products, compiled for one SIMD level. A replica is not done if a has not enough zeros, or if b holds infinity or
// NaN, whose product with 0 is NaN.
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
