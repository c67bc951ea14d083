// Storage types, vectors, and the barrier between blocks.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace bnkit {

using index = long long;

constexpr int threads = 256;  // in every block
constexpr int warp_threads = 32;
constexpr int warps = threads / warp_threads;
constexpr unsigned whole_warp = 0xffffffffu;

// The type of arithmetic, parameters and running statistics for data of type T.
template <typename T> struct WideOf {
    using type = float;
};
template <> struct WideOf<double> {
    using type = double;
};
template <typename T> using Wide = typename WideOf<T>::type;

__device__ __forceinline__ float widen(float a) { return a; }
__device__ __forceinline__ double widen(double a) { return a; }
__device__ __forceinline__ float widen(__half a) { return __half2float(a); }
__device__ __forceinline__ float widen(__nv_bfloat16 a) { return __bfloat162float(a); }

template <typename T> __device__ __forceinline__ T narrow(Wide<T> a) { return a; }
template <> __device__ __forceinline__ __half narrow<__half>(float a) { return __float2half_rn(a); }
template <> __device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float a) { return __float2bfloat16(a); }

// A positive value is stored in T as a positive number only if it exceeds this limit: half the least number of T. The
// limit is rounded to its even neighbour, 0.
template <typename T> constexpr Wide<T> rounds_to_zero = 0;
template <> constexpr float rounds_to_zero<__half> = 0x1p-25f;
template <> constexpr float rounds_to_zero<__nv_bfloat16> = 0x1p-134f;

// a * b + c with one rounding, so that forward and backward compute the same argument of the ReLU.
__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }

// V elements of one thread: 16 bytes, or a single element.
template <typename T, int V> struct Vector {
    static_assert(V == 1 || V * sizeof(T) == sizeof(uint4), "a vector is one element or 16 bytes");
    T of[V];
};

template <typename T, int V> __device__ __forceinline__ Vector<T, V> load(const T* from, bool aligned) {
    Vector<T, V> a;
    if (V > 1 && aligned) {
        const uint4 bytes = *reinterpret_cast<const uint4*>(from);
        memcpy(&a, &bytes, sizeof(a));
        return a;
    }
#pragma unroll
    for (int v = 0; v < V; ++v) a.of[v] = from[v];
    return a;
}

// Stores to global memory by a built-in: in the longer kernels NVRTC splits an assignment into one store per element.
template <typename T, int V> __device__ __forceinline__ void store(T* to, const Vector<T, V>& a, bool aligned) {
    if (V > 1 && aligned) {
        uint4 bytes;
        memcpy(&bytes, &a, sizeof(a));
        __stwb(reinterpret_cast<uint4*>(to), bytes);
        return;
    }
#pragma unroll
    for (int v = 0; v < V; ++v) to[v] = a.of[v];
}

// Reads a value that another block wrote in this launch. It bypasses the first-level cache, which may be stale.
__device__ __forceinline__ double load_fresh(const double* from) { return __ldcg(from); }

__device__ __forceinline__ int thread_number() { return threadIdx.y * blockDim.x + threadIdx.x; }

// A barrier of `blocks` blocks, which must all be resident (a cooperative launch). After it, load_fresh reads what they
// wrote before it. arrived: 0 at the start of the launch.
__device__ inline void wait_for_blocks(unsigned* arrived, unsigned blocks) {
    __syncthreads();
    if (thread_number() == 0) {
        __threadfence();  // after the barrier: the writes of the whole block precede its arrival
        atomicAdd(arrived, 1u);
        while (atomicAdd(arrived, 0u) < blocks) __nanosleep(32);
        __threadfence();  // before the barrier: the reads of the whole block follow it
    }
    __syncthreads();
}

}  // namespace bnkit
