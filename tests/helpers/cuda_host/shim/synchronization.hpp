// Barriers, the functions of a warp, and fences.
#pragma once

#include <type_traits>

#include "thread.hpp"

// Macros, for the line: threads that wait in different places do not wait for each other.
#define __syncthreads() ::cuda_host::block_barrier(__FILE__, __LINE__)
#define __syncthreads_count(predicate) ::cuda_host::block_barrier_count((predicate) != 0, __FILE__, __LINE__)
#define __syncthreads_or(predicate) (__syncthreads_count(predicate) != 0)
#define __syncthreads_and(predicate) (__syncthreads_count(!(predicate)) == 0)

inline void __syncwarp(unsigned mask = 0xffffffffu) { cuda_host::warp_barrier(mask); }

inline unsigned __ballot_sync(unsigned mask, int predicate) {
    return cuda_host::warp_ballot(mask, predicate != 0, cuda_host::WarpCall::ballot);
}

inline int __any_sync(unsigned mask, int predicate) {
    return cuda_host::warp_ballot(mask, predicate != 0, cuda_host::WarpCall::any) != 0;
}

inline int __all_sync(unsigned mask, int predicate) {
    return cuda_host::warp_ballot(mask, predicate == 0, cuda_host::WarpCall::all) == 0;
}

namespace cuda_host {

template <typename T> T shuffle(unsigned mask, T value, unsigned source, WarpCall call) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8, "__shfl_sync takes 4 or 8 bytes, or 16 bits");
    T result;
    warp_shuffle(mask, source, &value, &result, sizeof(T), call);
    return result;
}

}  // namespace cuda_host

// A lane whose source lies outside its part of `width` lanes keeps its own value.
template <typename T> T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    const unsigned lane = cuda_host::lane(), part = unsigned(width) - 1;
    return cuda_host::shuffle(mask, value, (lane & ~part) | (unsigned(source) & part), cuda_host::WarpCall::shuffle);
}

template <typename T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    const unsigned lane = cuda_host::lane(), part = unsigned(width) - 1, source = lane ^ unsigned(bits);
    return cuda_host::shuffle(mask, value, (source & ~part) > (lane & ~part) ? lane : source,
                              cuda_host::WarpCall::shuffle_xor);
}

template <typename T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    const unsigned lane = cuda_host::lane(), part = unsigned(width) - 1;
    return cuda_host::shuffle(mask, value, (lane & part) + by > part ? lane : lane + by,
                              cuda_host::WarpCall::shuffle_down);
}

template <typename T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    const unsigned lane = cuda_host::lane(), part = unsigned(width) - 1;
    return cuda_host::shuffle(mask, value, (lane & part) < by ? lane : lane - by, cuda_host::WarpCall::shuffle_up);
}

inline void __threadfence() { cuda_host::fence(true); }
inline void __threadfence_system() { cuda_host::fence(true); }
inline void __threadfence_block() { cuda_host::fence(false); }
inline void __nanosleep(unsigned) { cuda_host::yield(); }
[[noreturn]] inline void __trap() { cuda_host::fail("__trap()"); }
