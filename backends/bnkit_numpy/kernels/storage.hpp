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

}  // namespace bnkit
