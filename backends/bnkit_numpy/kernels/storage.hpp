// The types that tensors are stored in, and the one that each is computed in.
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

// What S is computed in, and what its parameters and running statistics are stored in.
template <typename S> using Wide = typename WideOf<S>::type;

// A value above 0 is stored in S as such only where it is above this: half the least number that S holds, which itself
// is rounded to the even neighbour, 0.
template <typename S> inline constexpr Wide<S> rounds_to_zero = 0;
template <> inline constexpr float rounds_to_zero<Half> = 0x1p-25f;
template <> inline constexpr float rounds_to_zero<BFloat16> = 0x1p-134f;

}  // namespace bnkit
