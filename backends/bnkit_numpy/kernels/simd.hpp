// Vectors of the compiler's own, as wide as the level that the file is compiled for.
//
// Everything here and in batch_norm.cpp lies in a namespace of the level, and neither instantiates templates of the
// standard library: the linker would keep one copy of those for all levels, perhaps one that this machine cannot run.
#pragma once

#include <cstddef>
#include <cstring>

namespace bnkit {
namespace BNKIT_LEVEL {

using index = std::ptrdiff_t;

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

#if defined(__GNUC__)
template <typename T> struct VectorOf { typedef T type __attribute__((vector_size(vector_bytes))); };
template <typename T> using Vector = typename VectorOf<T>::type;
#else
template <typename T> using Vector = T;  // what the compiler makes of plain loops
#endif

template <typename V, typename T> constexpr int lanes() { return static_cast<int>(sizeof(V) / sizeof(T)); }

template <typename V, typename T> inline V load(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <typename V, typename T> inline void store(T* p, V v) { std::memcpy(p, &v, sizeof v); }

template <typename T, typename V> inline double sum_lanes(V v) {
    T lane[lanes<V, T>()];
    std::memcpy(lane, &v, sizeof v);
    double sum = 0;
    for (T x : lane) sum += x;
    return sum;
}

// Calls body(V{}, i) at each place i of [0, n) where a whole vector starts, then body(T{}, i) for each element left:
// the work on one element is written once, for both.
template <typename T, typename Body> inline void for_vectors(index n, Body body) {
    using V = Vector<T>;
    constexpr int step = lanes<V, T>();
    index i = 0;
    for (; i + 4 * step <= n; i += 4 * step) {  // four independent sums hide the latency of an addition
        body(V{}, i, 0);
        body(V{}, i + step, 1);
        body(V{}, i + 2 * step, 2);
        body(V{}, i + 3 * step, 3);
    }
    for (; i + step <= n; i += step) body(V{}, i, 0);
    for (; i < n; ++i) body(T{}, i, 0);
}

template <typename T> struct Pair {
    T first, second;
};

constexpr index smaller(index a, index b) { return a < b ? a : b; }
constexpr index larger(index a, index b) { return a < b ? b : a; }

// Memory for n values, zero at first.
template <typename T> class Scratch {
  public:
    explicit Scratch(index n) : values_(new T[static_cast<std::size_t>(larger(n, 1))]()) {}
    ~Scratch() { delete[] values_; }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    T& operator[](index i) { return values_[i]; }
    const T& operator[](index i) const { return values_[i]; }
    T* data() { return values_; }
    const T* data() const { return values_; }

  private:
    T* values_;
};

}  // namespace BNKIT_LEVEL
}  // namespace bnkit
