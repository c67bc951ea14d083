// What the shim gives, for tests against NumPy and against what CUDA's guide says.
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace cases {

template <typename T> __global__ void widen(const T* x, float* y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = float(x[i]);
}

template <typename T> __global__ void narrow(const float* x, T* y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = T(x[i]);
}

// Where a thread is: x, y and z of thread, block, block's size and grid's size.
__global__ void places(unsigned* y) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned* to = y + (block * blockDim.x * blockDim.y * blockDim.z + thread) * 12;
    const uint3 index = threadIdx, at = blockIdx;
    const dim3 size = blockDim, grid = gridDim;
    const unsigned all[] = {index.x, index.y, index.z, at.x,   at.y,   at.z,
                            size.x,  size.y,  size.z,  grid.x, grid.y, grid.z};
    for (int i = 0; i < 12; ++i) to[i] = all[i];
}

// What each lane has of the lanes' own numbers, a line of 32 for each function.
__global__ void shuffles(int* y) {
    const int lane = threadIdx.x;
    const unsigned all = 0xffffffffu;
    const int results[] = {
        __shfl_sync(all, lane, 5),          __shfl_sync(all, lane, 3, 8),
        __shfl_xor_sync(all, lane, 16),     __shfl_xor_sync(all, lane, 1, 4),
        __shfl_down_sync(all, lane, 3),     __shfl_down_sync(all, lane, 3, 8),
        __shfl_up_sync(all, lane, 3),       __shfl_up_sync(all, lane, 3, 8),
        int(__ballot_sync(all, lane % 3 == 0)), __any_sync(all, lane == 31),
        __all_sync(all, lane < 32),         __all_sync(all, lane < 31),
    };
    for (int i = 0; i < 12; ++i) y[32 * i + lane] = results[i];
    // Half of the warp by itself.
    if (lane < 16) y[32 * 12 + lane] = __shfl_xor_sync(0x0000ffffu, lane, 8);
}

__global__ void counts(int* y) {
    y[threadIdx.x] = __syncthreads_count(threadIdx.x % 3 == 0) * 100 + __syncthreads_or(threadIdx.x == 70) * 10 +
                     __syncthreads_and(threadIdx.x < 70);
}

__global__ void atomics(unsigned* y) {
    atomicAdd(y, 2u);
    atomicMax(y + 1, threadIdx.x);
    atomicInc(y + 2, 9u);
    atomicCAS(y + 3, threadIdx.x, threadIdx.x + 1);
    atomicExch(y + 4, 7u);
    atomicOr(y + 5, 1u << threadIdx.x % 32);
}

__global__ void mathematics(const float* x, float* y) {
    y[0] = min(x[0], x[1]);  // of a NaN and a number it is the number
    y[1] = max(x[0], x[1]);
    y[2] = rsqrtf(x[1]);
    y[3] = fmaf(x[1], x[1], x[2]);
    y[4] = float(__umulhi(0xffffffffu, 16u));
    y[5] = __uint_as_float(__float_as_uint(x[1]) + 1);
    y[6] = float(min(3, 5u));
    y[7] = float(sizeof(float4) + alignof(float4) + alignof(uint4) + alignof(float2) + sizeof(float3));
}

// The dynamic array lies in a namespace, and two names are one memory.
__global__ void dynamic(const float* x, float* y, int n) {
    extern __shared__ alignas(16) float tile[];
    extern __shared__ __align__(16) unsigned bits[];
    for (int i = threadIdx.x; i < n; i += blockDim.x) tile[i] = x[i];
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = __uint_as_float(bits[n - 1 - i]);
}

// Each block writes, all wait, each reads what another wrote: `steps` times.
__global__ void turn(float* x, float* y, int steps) {
    for (int step = 0; step < steps; ++step) {
        y[blockIdx.x * blockDim.x + threadIdx.x] = x[((blockIdx.x + 1) % gridDim.x) * blockDim.x + threadIdx.x];
        cooperative_groups::this_grid().sync();
        x[blockIdx.x * blockDim.x + threadIdx.x] = y[blockIdx.x * blockDim.x + threadIdx.x];
        cooperative_groups::this_grid().sync();
    }
}

template <bool right> __global__ void wait_for_all(float* x) {
    if (right || blockIdx.x != 1) cooperative_groups::this_grid().sync();
    x[blockIdx.x * blockDim.x + threadIdx.x] = 1;
}

struct Sizes {
    long long rows, columns;
};

__global__ void add_sizes(Sizes sizes, bool twice, double* y) {
    *y = double((sizes.rows + sizes.columns) * (1 + twice));
}

}  // namespace cases
