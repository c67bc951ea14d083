// The 16-bit floats: storage, and conversions that round to nearest, to even in a tie.
#pragma once

#include <cmath>
#include <cstdint>

#include "mathematics.hpp"

namespace cuda_host {

inline std::uint16_t bfloat16_bits(float value) {
    const auto bits = bits_as<std::uint32_t>(value);
    if (std::isnan(value)) return 0x7fff;
    return std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float float_of_bfloat16(std::uint16_t bits) { return bits_as<float>(std::uint32_t(bits) << 16); }

inline std::uint16_t half_bits(float value) {
    const auto sign = std::uint16_t(bits_as<std::uint32_t>(value) >> 16 & 0x8000);
    const float size = std::fabs(value);
    if (std::isnan(value)) return 0x7fff;
    if (size >= 65520) return sign | 0x7c00;  // halfway between the largest half and the next power
    // The scale of the last place; those below the least exponent have its.
    const int exponent = size < 0x1p-14f ? -14 : std::ilogb(size);
    const auto units = std::uint32_t(std::nearbyint(std::ldexp(size, 10 - exponent)));
    // A carry out of the ten bits moves the exponent on, and the leading bit is 0 below the least exponent.
    return std::uint16_t(sign | ((std::uint32_t(exponent + 14) << 10) + units));
}

inline float float_of_half(std::uint16_t bits) {
    const int exponent = bits >> 10 & 31, units = bits & 0x3ff;
    float size;
    if (exponent == 31) {
        size = units == 0 ? INFINITY : NAN;
    } else {
        size = exponent == 0 ? std::ldexp(float(units), -24) : std::ldexp(float(units + 1024), exponent - 25);
    }
    return (bits & 0x8000) != 0 ? -size : size;
}

}  // namespace cuda_host

struct __half {
    std::uint16_t bits;
    __half() = default;
    __half(float value) : bits(cuda_host::half_bits(value)) {}
    __half(double) = delete;  // it would be rounded twice
    operator float() const { return cuda_host::float_of_half(bits); }
};

struct __nv_bfloat16 {
    std::uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float value) : bits(cuda_host::bfloat16_bits(value)) {}
    __nv_bfloat16(double) = delete;
    operator float() const { return cuda_host::float_of_bfloat16(bits); }
};

using half = __half;
using nv_bfloat16 = __nv_bfloat16;

inline float __half2float(__half x) { return x; }
inline __half __float2half(float x) { return x; }
inline __half __float2half_rn(float x) { return x; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline __nv_bfloat16 __float2bfloat16(float x) { return x; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return x; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __half __ushort_as_half(unsigned short bits) { return cuda_host::bits_as<__half>(bits); }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return cuda_host::bits_as<__nv_bfloat16>(bits); }
