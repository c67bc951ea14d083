// The storage types of tensors, and the type of arithmetic for each.
#pragma once

#include <cstdint>

namespace bnkit {

struct Half {
    std::uint16_t bits;
};

struct BFloat16 {
    std::uint16_t bits;
};

template <typename S> struct WideOf { using type = S; };
template <> struct WideOf<Half> { using type = float; };
template <> struct WideOf<BFloat16> { using type = float; };

// The type of arithmetic, parameters and running statistics for data of type S.
template <typename S> using Wide = typename WideOf<S>::type;

// A positive value is stored in S as a positive number only if it exceeds this limit: half the least number of S. The
// limit is rounded to its even neighbour, 0.
template <typename S> inline constexpr Wide<S> rounds_to_zero = 0;
template <> inline constexpr float rounds_to_zero<Half> = 0x1p-25f;
template <> inline constexpr float rounds_to_zero<BFloat16> = 0x1p-134f;

}  // namespace bnkit
