// The words of CUDA C++ that C++ lacks, and its vector types.
#pragma once

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __grid_constant__
#define __maxnreg__(...)
// One OS thread runs one block at a time, so what is a thread's own is a block's. Not `static`: that an array within a
// function is static goes without saying, and `extern` may stand before it.
#define __shared__ thread_local

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define CUDA_HOST_VECTORS(name, T)                                                                    \
    struct name##1 {                                                                                  \
        T x;                                                                                          \
    };                                                                                                \
    struct __align__(2 * sizeof(T)) name##2 {                                                         \
        T x, y;                                                                                       \
    };                                                                                                \
    struct name##3 {                                                                                  \
        T x, y, z;                                                                                    \
    };                                                                                                \
    struct __align__(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4 {                               \
        T x, y, z, w;                                                                                 \
    };                                                                                                \
    constexpr name##1 make_##name##1(T x) { return {x}; }                                             \
    constexpr name##2 make_##name##2(T x, T y) { return {x, y}; }                                     \
    constexpr name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                             \
    constexpr name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

CUDA_HOST_VECTORS(char, signed char)
CUDA_HOST_VECTORS(uchar, unsigned char)
CUDA_HOST_VECTORS(short, short)
CUDA_HOST_VECTORS(ushort, unsigned short)
CUDA_HOST_VECTORS(int, int)
CUDA_HOST_VECTORS(uint, unsigned)
CUDA_HOST_VECTORS(longlong, long long)
CUDA_HOST_VECTORS(ulonglong, unsigned long long)
CUDA_HOST_VECTORS(float, float)
CUDA_HOST_VECTORS(double, double)
#undef CUDA_HOST_VECTORS
