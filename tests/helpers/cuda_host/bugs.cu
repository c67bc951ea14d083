// Kernels that are right, and with one bug: what the host double must find. `right` is the only difference.

// Each element of a block's tile from the other end.
template <bool right> __global__ void reverse_tile(const float* x, float* y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    if (right) __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];
}

// The same within a warp.
template <bool right> __global__ void reverse_warp(const float* x, float* y) {
    __shared__ float tile[32];
    tile[threadIdx.x] = x[threadIdx.x];
    if (right) __syncwarp();
    y[threadIdx.x] = tile[31 - threadIdx.x];
}

// Reads that must be over before the tile is written again.
template <bool right> __global__ void add_neighbours(const float* x, float* y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    const float sum = tile[threadIdx.x] + tile[(threadIdx.x + 1) % 64];
    if (right) __syncthreads();
    tile[threadIdx.x] = sum;
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];
}

// A barrier that only some of the threads reach.
template <bool right> __global__ void add_first_half(const float* x, float* y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    if (right) __syncthreads();
    if (threadIdx.x < 32) {
        if (!right) __syncthreads();
        y[threadIdx.x] = tile[threadIdx.x] + tile[threadIdx.x + 32];
    }
}

// Both halves reach a barrier, but not the same one.
template <bool right> __global__ void add_halves(const float* x, float* y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    if (right) {
        __syncthreads();
    } else if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    y[threadIdx.x] = tile[threadIdx.x] + tile[63 - threadIdx.x];
}

// A shuffle whose mask names lanes that never come.
template <bool right> __global__ void sum_of_warp(const float* x, float* y) {
    if (!right && threadIdx.x >= 16) return;
    float sum = x[threadIdx.x];
    for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
    if (threadIdx.x == 0) y[0] = sum;
}

// The last block adds up what the others have written and fenced.
template <bool release, bool acquire>
__global__ void sum_of_blocks(const float* x, float* partials, unsigned* ticket, float* y) {
    __shared__ bool last;
    if (threadIdx.x == 0) {
        partials[blockIdx.x] = x[blockIdx.x];
        if (release) __threadfence();
        last = atomicAdd(ticket, 1u) == gridDim.x - 1;
        if (acquire) __threadfence();
    }
    __syncthreads();
    if (!last || threadIdx.x != 0) return;
    float sum = 0;
    for (unsigned i = 0; i < gridDim.x; ++i) sum += __ldcg(partials + i);
    y[0] = sum;
    atomicExch(ticket, 0u);
}

// Blocks that wait for each other, in a cooperative launch.
__device__ inline void wait_for_blocks(unsigned* arrived, bool fenced) {
    __syncthreads();
    if (threadIdx.x == 0) {
        if (fenced) __threadfence();
        atomicAdd(arrived, 1u);
        while (atomicAdd(arrived, 0u) < gridDim.x) __nanosleep(32);
        __threadfence();
    }
    __syncthreads();
}

template <bool right> __global__ void reverse_blocks(const float* x, float* between, unsigned* arrived, float* y) {
    between[blockIdx.x * blockDim.x + threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
    wait_for_blocks(arrived, right);
    const unsigned other = gridDim.x - 1 - blockIdx.x;
    y[blockIdx.x * blockDim.x + threadIdx.x] = between[other * blockDim.x + threadIdx.x];
}

// One element behind the end.
template <bool right> __global__ void copy(const float* x, float* y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (right ? i < n : i <= n) y[i] = 2 * x[right ? i : 0];
}

template <bool right> __global__ void read_behind(const float* x, float* y, int n) {
    if (int(threadIdx.x) < n) y[threadIdx.x] = x[threadIdx.x + !right];
}

// The same in shared memory, static and dynamic.
template <bool right> __global__ void shift_tile(const float* x, float* y) {
    __shared__ float tile[64];
    tile[threadIdx.x + !right] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[(threadIdx.x + 1) % 64];
}

template <bool right> __global__ void shift_dynamic(const float* x, float* y) {
    extern __shared__ __align__(16) unsigned char dynamic_shared[];
    float* tile = reinterpret_cast<float*>(dynamic_shared);
    tile[threadIdx.x + !right] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[(threadIdx.x + 1) % blockDim.x];
}

// A sum that takes one more for zero than was written.
template <bool right> __global__ void sum_of_tile(const float* x, float* y) {
    __shared__ float tile[33];
    tile[threadIdx.x] = x[threadIdx.x];
    if (right && threadIdx.x == 0) tile[32] = 0;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < 33; ++i) sum += tile[i];
    y[threadIdx.x] = sum;
}

// Sums of floats in whichever order the threads come.
__global__ void sum_by_atomics(const float* x, float* y) { atomicAdd(y, x[blockIdx.x * blockDim.x + threadIdx.x]); }
__global__ void count_by_atomics(const float* x, unsigned* y) {
    atomicAdd(y, unsigned(x[blockIdx.x * blockDim.x + threadIdx.x] > 0));
}

// A flag that nobody sets.
template <bool right> __global__ void wait_for_flag(unsigned* flag, float* y) {
    if (threadIdx.x == 0 && right) atomicExch(flag, 1u);
    if (threadIdx.x == 1) {
        while (atomicAdd(flag, 0u) == 0) {
        }
        y[0] = 1;
    }
}
