// Atomics, which order nothing but themselves, as CUDA's do; and the loads and stores that name a cache.
#pragma once

#include <type_traits>

#include "thread.hpp"

namespace cuda_host {

// The old value; `change` gives the new one.
template <typename T, typename Change> T exchange_with(T* p, Change change) {
    before_atomic();
    T old, changed;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do {
        changed = change(old);
    } while (!__atomic_compare_exchange(p, &old, &changed, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}

// The second argument converts to the type of the first.
template <typename T> using As = std::common_type_t<T>;

}  // namespace cuda_host

template <typename T> T atomicAdd(T* p, cuda_host::As<T> value) {
    return cuda_host::exchange_with(p, [=](T old) { return T(old + value); });
}
template <typename T> T atomicSub(T* p, cuda_host::As<T> value) {
    return cuda_host::exchange_with(p, [=](T old) { return T(old - value); });
}
template <typename T> T atomicMin(T* p, cuda_host::As<T> value) {
    return cuda_host::exchange_with(p, [=](T old) { return value < old ? value : old; });
}
template <typename T> T atomicMax(T* p, cuda_host::As<T> value) {
    return cuda_host::exchange_with(p, [=](T old) { return old < value ? value : old; });
}
template <typename T> T atomicOr(T* p, cuda_host::As<T> value) {
    return cuda_host::exchange_with(p, [=](T old) { return T(old | value); });
}
template <typename T> T atomicAnd(T* p, cuda_host::As<T> value) {
    return cuda_host::exchange_with(p, [=](T old) { return T(old & value); });
}
template <typename T> T atomicExch(T* p, cuda_host::As<T> value) {
    return cuda_host::exchange_with(p, [=](T) { return value; });
}
template <typename T> T atomicCAS(T* p, cuda_host::As<T> expected, cuda_host::As<T> value) {
    return cuda_host::exchange_with(p, [=](T old) { return old == expected ? value : old; });
}
// Counts up to `last`, then from 0 again.
inline unsigned atomicInc(unsigned* p, unsigned last) {
    return cuda_host::exchange_with(p, [=](unsigned old) { return old >= last ? 0 : old + 1; });
}

#define CUDA_HOST_LOAD(name) \
    template <typename T> inline T name(const T* p) { return *p; }
#define CUDA_HOST_STORE(name) \
    template <typename T> inline void name(T* p, cuda_host::As<T> value) { *p = value; }
CUDA_HOST_LOAD(__ldg)
CUDA_HOST_LOAD(__ldca)
CUDA_HOST_LOAD(__ldcg)
CUDA_HOST_LOAD(__ldcs)
CUDA_HOST_LOAD(__ldlu)
CUDA_HOST_LOAD(__ldcv)
CUDA_HOST_STORE(__stwb)
CUDA_HOST_STORE(__stcg)
CUDA_HOST_STORE(__stcs)
CUDA_HOST_STORE(__stwt)
#undef CUDA_HOST_LOAD
#undef CUDA_HOST_STORE
