// The compiler's vector types, as wide as the SIMD level of the file. A compiler without them uses scalars, in loops
// that it may vectorize.
//
// Everything here and in the kernels is in the namespace of its level, and calls no function templates of the standard
// library: the linker would keep one copy of them for all levels, perhaps one that this machine cannot run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "storage.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

// For functions on vectors. Without it, g++ 12 called them and copied every value through the stack, which slowed a
// backward down even beyond the caches.
#if defined(__GNUC__)
#define BNKIT_INLINE __attribute__((always_inline)) inline
#else
#define BNKIT_INLINE inline
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // it concerns vectors passed between files, and none is
#endif

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

template <typename T, int N> struct VectorOf {
#if defined(__GNUC__)
    typedef T type __attribute__((vector_size(N * sizeof(T))));
#endif
};
template <typename T> struct VectorOf<T, 1> { using type = T; };

// N elements of T; T itself for one.
template <typename T, int N> using VectorN = typename VectorOf<T, N>::type;

#if defined(__GNUC__)
template <typename T> using Vector = VectorN<T, vector_bytes / static_cast<int>(sizeof(T))>;
#else
template <typename T> using Vector = T;
#endif

template <typename V, bool scalar = std::is_arithmetic<V>::value> struct ElementOf { using type = V; };
template <typename V> struct ElementOf<V, false> {
    using type = typename std::decay<decltype(std::declval<V&>()[0])>::type;
};
template <typename V> using Element = typename ElementOf<V>::type;

template <typename V> constexpr int lanes() { return static_cast<int>(sizeof(V) / sizeof(Element<V>)); }

// A vector of unsigned integers with the number and width of V's elements.
template <typename V> using Bits = VectorN<typename std::conditional<sizeof(Element<V>) == 8, std::uint64_t,
                                                                     std::uint32_t>::type, lanes<V>()>;

template <typename To, typename From> inline To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <typename To, typename From> inline To convert(From from) {
#if defined(__GNUC__)
    if constexpr (!std::is_arithmetic<To>::value) return __builtin_convertvector(from, To);
    else
#endif
    return static_cast<To>(from);
}

template <typename V, typename T> inline V load_bits(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <typename V> inline V load(const Element<V>* p) { return load_bits<V>(p); }

template <typename V> inline V load(const BFloat16* p) {
    return bit_cast<V>(convert<Bits<V>>(load_bits<VectorN<std::uint16_t, lanes<V>()>>(p)) << 16);
}

#if defined(__AVX512F__)
constexpr __mmask16 all_lanes = 0xffff;  // without a mask g++ warns of an uninitialized value
#endif

// Source: F. Giesen, "Half to float done quick": a product moves the exponent, and also normalizes subnormals.
template <typename V> inline V load(const Half* p) {
#if defined(__AVX512F__)
    if constexpr (lanes<V>() == 16) return bit_cast<V>(_mm512_maskz_cvtph_ps(all_lanes, load_bits<__m256i>(p)));
#elif defined(__F16C__)
    if constexpr (lanes<V>() == 8) return bit_cast<V>(_mm256_cvtph_ps(load_bits<__m128i>(p)));
#endif
    using B = Bits<V>;
    const B half = convert<B>(load_bits<VectorN<std::uint16_t, lanes<V>()>>(p));
    const B magnitude = (half & 0x7fffu) << 13, finite = bit_cast<B>(bit_cast<V>(magnitude) * 0x1p112f);
    const B special = magnitude | (B{} + 0x7f800000u);  // infinite, or not a number
    return bit_cast<V>((magnitude >= (B{} + 0x0f800000u) ? special : finite) | (half & 0x8000u) << 16);
}

// Rounds to nearest, ties to even.
template <typename B> inline B bfloat16_bits(B w) {
    const B nearest = (w + 0x7fffu + ((w >> 16) & 1u)) >> 16, quiet_nan = (w >> 16) | 0x40u;
    return (w & 0x7fffffffu) > (B{} + 0x7f800000u) ? quiet_nan : nearest;
}

// Source: F. Giesen, "float_to_half_fast3_rtne".
template <typename V, typename B> inline B half_bits(B w) {
    const B magnitude = w & 0x7fffffffu, sign = (w >> 16) & 0x8000u;
    const B nan_or_infinity = magnitude > (B{} + 0x7f800000u) ? B{} + 0x7e00u : B{} + 0x7c00u;
    const B small = bit_cast<B>(bit_cast<V>(magnitude) + 0.5f) - 0x3f000000u;  // the sum rounds to the subnormal grid
    const B normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;
    const B finite = magnitude < (B{} + 0x38800000u) ? small : normal;
    return (magnitude >= (B{} + 0x47800000u) ? nan_or_infinity : finite) | sign;
}

// v converted to the storage type S, with as many elements.
template <typename S, typename V> inline auto stored(V v) {
    using Narrow = VectorN<std::uint16_t, lanes<V>()>;
    if constexpr (std::is_same<S, Half>::value) {
#if defined(__AVX512F__)
        if constexpr (lanes<V>() == 16) {
            return _mm512_maskz_cvtps_ph(all_lanes, bit_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT);
        }
        else
#elif defined(__F16C__)
        if constexpr (lanes<V>() == 8) return _mm256_cvtps_ph(bit_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT);
        else
#endif
        return convert<Narrow>(half_bits<V>(bit_cast<Bits<V>>(v)));
    } else if constexpr (std::is_same<S, BFloat16>::value) {
        return convert<Narrow>(bfloat16_bits(bit_cast<Bits<V>>(v)));
    } else {
        return v;
    }
}

template <typename S, typename V> inline void store(S* p, V v) {
    const auto value = stored<S>(v);
    std::memcpy(p, &value, sizeof value);
}

// Stores through the cache, or past it. Streamed needs addresses aligned to 16 bytes, as NumPy's arrays have; alignment
// to a whole vector would be rare.
struct Cached {
    template <typename S, typename V> BNKIT_INLINE static void put(S* p, V v) { store(p, v); }
};

struct Streamed {
    template <typename S, typename V> BNKIT_INLINE static void put(S* p, V v) {
#if defined(__SSE2__)
        const auto value = stored<S>(v);
        if constexpr (sizeof value % 16 == 0) {
            __m128i parts[sizeof value / 16];
            std::memcpy(parts, &value, sizeof value);
            auto* const to = reinterpret_cast<__m128i*>(p);
            for (std::size_t i = 0; i < sizeof value / 16; ++i) _mm_stream_si128(to + i, parts[i]);
            return;
        }
#endif
        store(p, v);
    }
};

// Prefetches p into the second-level cache; p may be past the end of an array.
inline void prefetch(const void* p) {
#if defined(__GNUC__)
    __builtin_prefetch(p, 0, 2);
#else
    (void)p;
#endif
}

// To call after streamed stores, before another thread reads them.
inline void finish_streams() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

// 0, 1, 2, … as integers of V's width.
template <typename V> inline Bits<V> lane_numbers() {
    Element<Bits<V>> numbers[lanes<V>()];
    for (int i = 0; i < lanes<V>(); ++i) numbers[i] = static_cast<Element<Bits<V>>>(i);
    return load_bits<Bits<V>>(numbers);
}

// v, but 0 in the first `count` lanes.
template <typename V> inline V without_first(V v, int count) {
    using B = Bits<V>;
    return lane_numbers<V>() < B{} + static_cast<Element<B>>(count) ? V{} : v;
}

// Bit i says whether lane i is above `limit`.
template <typename V> inline unsigned lanes_above(V v, Element<V> limit) {
    using T = Element<V>;
    constexpr bool wide = sizeof(T) == 8;
    (void)wide;
#if defined(__AVX512F__)
    if constexpr (sizeof(V) == 64 && wide) {
        return _mm512_cmp_pd_mask(bit_cast<__m512d>(v), _mm512_set1_pd(limit), _CMP_GT_OQ);
    }
    if constexpr (sizeof(V) == 64 && !wide) {
        return _mm512_cmp_ps_mask(bit_cast<__m512>(v), _mm512_set1_ps(limit), _CMP_GT_OQ);
    }
#elif defined(__AVX2__)
    if constexpr (sizeof(V) == 32 && wide) return _mm256_movemask_pd(bit_cast<__m256d>(v > V{} + limit));
    if constexpr (sizeof(V) == 32 && !wide) return _mm256_movemask_ps(bit_cast<__m256>(v > V{} + limit));
#endif
    T lane[lanes<V>()];
    std::memcpy(lane, &v, sizeof v);
    unsigned bits = 0;
    for (int i = 0; i < lanes<V>(); ++i) bits |= static_cast<unsigned>(lane[i] > limit) << i;
    return bits;
}

// v where the lane's bit is set, else 0.
template <typename V> inline V where(unsigned bits, V v) {
    using B = Bits<V>;
    const B bit = (B{} + 1u) << lane_numbers<V>();
    return ((B{} + bits) & bit) != B{} ? v : V{};
}

// Writes the bits of elements [i, i + n) of a row, which must come in ascending order from the row's start.
inline void put_bits(std::uint8_t* row, index i, int n, unsigned bits) {
    const int shift = static_cast<int>(i % 8);
    std::uint8_t* to = row + i / 8;
    bits <<= shift;
    if (shift != 0) bits |= to[0];
    for (int done = 0; done < shift + n; done += 8, bits >>= 8) *to++ = static_cast<std::uint8_t>(bits);
}

// Reads the bits of elements [i, i + n) of a row.
inline unsigned get_bits(const std::uint8_t* row, index i, int n) {
    const int shift = static_cast<int>(i % 8);
    const std::uint8_t* from = row + i / 8;
    unsigned bits = from[0];
    if (shift + n > 8) bits |= static_cast<unsigned>(from[1]) << 8;
    if (shift + n > 16) bits |= static_cast<unsigned>(from[2]) << 16;
    return bits >> shift;
}

// sums[i] += lane i, in double.
template <typename V> inline void add_lanes(double* sums, V v) {
    if constexpr (sizeof(Element<V>) == 4 && lanes<V>() > 1) {
        using Part = VectorN<float, lanes<V>() / 2>;
        using Sum = VectorN<double, lanes<V>() / 2>;
        Part parts[2];
        std::memcpy(parts, &v, sizeof v);
        for (int i = 0; i < 2; ++i) {
            double* at = sums + i * lanes<Part>();
            store(at, load<Sum>(at) + convert<Sum>(parts[i]));
        }
    } else {
        using Sum = VectorN<double, lanes<V>()>;
        store(sums, load<Sum>(sums) + convert<Sum>(v));
    }
}

// The sum of n elements in double, by vectors V.
template <typename V> inline double sum(const Element<V>* p, index n) {
    double lane[lanes<V>()] = {}, total = 0;
    index i = 0;
    for (; i + lanes<V>() <= n; i += lanes<V>()) add_lanes(lane, load<V>(p + i));
    for (; i < n; ++i) total += static_cast<double>(p[i]);
    for (double each : lane) total += each;
    return total;
}

template <typename V> struct Pair {
    V first, second;
};

constexpr index smaller(index a, index b) { return a < b ? a : b; }
constexpr index larger(index a, index b) { return a < b ? b : a; }

// Uninitialized memory for n values.
template <typename T> class Scratch {
  public:
    explicit Scratch(index n) : values_(n > 0 ? new T[static_cast<std::size_t>(n)] : nullptr) {}
    ~Scratch() { delete[] values_; }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    T* data() const { return values_; }

  private:
    T* values_;
};

}  // namespace BNKIT_LEVEL
}  // namespace bnkit
