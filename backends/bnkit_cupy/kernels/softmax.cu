// softmax: the loss of each row, and the gradient of the mean loss. mean_loss: the mean of the rows' losses.
//
// softmax: a warp has a row, a block has eight, and a thread has every 32nd class. It reads the logits three times, two
// of them from the first-level cache, and the target once or twice. It writes the gradient once, and 8 bytes a row.
// mean_loss: a block has one leading entry, and reads these 8 bytes for each row.
#include "device.cuh"

namespace bnkit {

__device__ __forceinline__ float exponential(float a) { return expf(a); }
__device__ __forceinline__ double exponential(double a) { return exp(a); }

// The target of a row: a label, or the weights of the classes.
template <typename A> struct Target {
    const index* label;
    const A* weights;

    __device__ A operator[](index c) const { return weights ? weights[c] : A(*label == c); }
};

__device__ inline double sum_over_warp(double a) {
    for (int step = warp_threads / 2; step > 0; step /= 2) a += __shfl_xor_sync(whole_warp, a, step);
    return a;
}

template <typename T>
__global__ void __launch_bounds__(threads, 2)
    softmax(const T* __restrict__ logits, const index* __restrict__ labels, const Wide<T>* __restrict__ weights,
            T* __restrict__ dlogits, double* __restrict__ row_losses, index leading, index rows, index classes,
            int shared_target) {
    using A = Wide<T>;
    const index row = static_cast<index>(blockIdx.x) * warps + thread_number() / warp_threads;
    if (row >= leading * rows) return;  // the whole warp
    const int lane = thread_number() % warp_threads;
    const index target_row = shared_target ? row % rows : row;
    const Target<A> target{labels ? labels + target_row : nullptr, weights ? weights + target_row * classes : nullptr};
    const T* z = logits + row * classes;
    A most = widen(z[0]);
    for (index c = lane; c < classes; c += warp_threads) most = most < widen(z[c]) ? widen(z[c]) : most;
    for (int step = warp_threads / 2; step > 0; step /= 2) {
        const A other = __shfl_xor_sync(whole_warp, most, step);
        most = most < other ? other : most;
    }
    double powers = 0, mass = 0;
    for (index c = lane; c < classes; c += warp_threads) {
        powers += static_cast<double>(exponential(widen(z[c]) - most));  // NaN for a row that holds one
        mass += static_cast<double>(target[c]);
    }
    powers = sum_over_warp(powers);
    mass = sum_over_warp(mass);
    const double log_powers = log(powers), mean = 1 / static_cast<double>(rows);
    const A scale = static_cast<A>(mass / powers);
    double loss = 0;
    for (index c = lane; c < classes; c += warp_threads) {
        const A shifted = widen(z[c]) - most, weight = target[c];
        if (weight != A(0)) loss -= static_cast<double>(weight) * (static_cast<double>(shifted) - log_powers);
        dlogits[row * classes + c] = narrow<T>((exponential(shifted) * scale - weight) * static_cast<A>(mean));
    }
    loss = sum_over_warp(loss);
    // A NaN logit with weight 0 makes the loss NaN too, by log_powers in the term of every class with a weight.
    if (lane == 0) row_losses[row] = loss;
}

__global__ void __launch_bounds__(threads, 4)
    mean_loss(const double* __restrict__ row_losses, double* __restrict__ losses, index rows) {
    __shared__ double part[warps];
    double sum = 0;
    for (index r = thread_number(); r < rows; r += threads) sum += row_losses[blockIdx.x * rows + r];
    sum = sum_over_warp(sum);
    if (thread_number() % warp_threads == 0) part[thread_number() / warp_threads] = sum;
    __syncthreads();
    if (thread_number() != 0) return;
    double total = 0;
    for (int w = 0; w < warps; ++w) total += part[w];
    losses[blockIdx.x] = total / static_cast<double>(rows);
}

}  // namespace bnkit
