// CUDA's mathematical functions that <cmath> has not: exact where the device's own are rounded to nearest, and not the
// same bits where they are approximations.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

using std::isfinite;
using std::isinf;
using std::isnan;

// As CUDA's: mixed integer types are allowed, and of a number and a NaN it is the number.
template <typename A, typename B> constexpr std::common_type_t<A, B> min(A a, B b) {
    using C = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<C>) return std::fmin(C(a), C(b));
    return C(b) < C(a) ? C(b) : C(a);
}
template <typename A, typename B> constexpr std::common_type_t<A, B> max(A a, B b) {
    using C = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<C>) return std::fmax(C(a), C(b));
    return C(a) < C(b) ? C(b) : C(a);
}

inline float rsqrtf(float x) { return float(1 / std::sqrt(double(x))); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frsqrt_rn(float x) { return rsqrtf(x); }
inline float __frcp_rn(float x) { return 1 / x; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }

inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((static_cast<unsigned long long>(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1u) << (31 - bit);
    return reversed;
}

namespace cuda_host {

template <typename To, typename From> To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

}  // namespace cuda_host

inline unsigned __float_as_uint(float x) { return cuda_host::bits_as<unsigned>(x); }
inline int __float_as_int(float x) { return cuda_host::bits_as<int>(x); }
inline float __uint_as_float(unsigned x) { return cuda_host::bits_as<float>(x); }
inline float __int_as_float(int x) { return cuda_host::bits_as<float>(x); }
inline long long __double_as_longlong(double x) { return cuda_host::bits_as<long long>(x); }
inline double __longlong_as_double(long long x) { return cuda_host::bits_as<double>(x); }
