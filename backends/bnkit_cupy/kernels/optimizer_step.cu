// optimizer_step: updates parameters and optimizer state in place, by the rules of bnkit/reference/optimizer.py.
//
// Thread t of the grid has the t-th 16 bytes of each flat array. It reads the parameters, the gradient and the state
// once, and writes all but the gradient: 3 to 7 transfers of an array. The operations of the reference make 6 to 30.
#include "device.cuh"
#include "rule.cuh"

namespace bnkit {

// The first `count` elements, at most a whole vector.
template <typename T, int V>
__device__ __forceinline__ Vector<T, V> load_some(const T* from, index count, bool aligned) {
    if (count >= V) return load<T, V>(from, aligned);
    Vector<T, V> a = {};
#pragma unroll
    for (int v = 0; v < V; ++v) {
        if (v < count) a.of[v] = from[v];
    }
    return a;
}

template <typename T, int V>
__device__ __forceinline__ void store_some(T* to, const Vector<T, V>& a, index count, bool aligned) {
    if (count >= V) return store(to, a, aligned);
#pragma unroll
    for (int v = 0; v < V; ++v) {
        if (v < count) to[v] = a.of[v];
    }
}

// rates: the learning rate of each entry of `length` elements; if it is null, lr and keep = 1 - lr * weight_decay hold
// for all entries. The arrays do not overlap.
template <typename T, int number>
__global__ void __launch_bounds__(threads, 4)
    optimizer_step(T* __restrict__ p, const T* __restrict__ g, T* __restrict__ first, T* __restrict__ second,
                   const T* __restrict__ rates, index size, index length, T lr, T keep, T weight_decay, T decay1,
                   T take1, T correction1, T decay2, T take2, T correction2, T eps, int aligned) {
    constexpr int V = sizeof(uint4) / sizeof(T);
    constexpr Rule rule = static_cast<Rule>(number);
    constexpr int memories = memories_of(rule);
    const index element = (static_cast<index>(blockIdx.x) * threads + thread_number()) * V, count = size - element;
    if (count <= 0) return;
    const Factors<T> factors{{decay1, decay2}, {take1, take2}, {correction1, correction2}, eps};
    Vector<T, V> param = load_some<T, V>(p + element, count, aligned), one = {}, two = {};
    const Vector<T, V> gradient = load_some<T, V>(g + element, count, aligned);
    if (memories > 0) one = load_some<T, V>(first + element, count, aligned);
    if (memories > 1) two = load_some<T, V>(second + element, count, aligned);
    index entry = rates ? element / length : 0, end = (entry + 1) * length;
    if (rates) {
        lr = rates[entry];
        keep = T(1) - lr * weight_decay;
    }
#pragma unroll
    for (int v = 0; v < V; ++v) {
        if (rates && element + v == end && v < count) {  // the vector continues in the next entry
            lr = rates[++entry];
            keep = T(1) - lr * weight_decay;
            end += length;
        }
        param.of[v] *= keep;
        step<rule>(param.of[v], gradient.of[v], one.of[v], two.of[v], lr, factors);
    }
    store_some<T, V>(p + element, param, count, aligned);
    if (memories > 0) store_some<T, V>(first + element, one, count, aligned);
    if (memories > 1) store_some<T, V>(second + element, two, count, aligned);
}

}  // namespace bnkit
