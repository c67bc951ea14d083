// uniform: float32 in [0, 1), equal to bnkit/reference/random.py in every bit.
//
// Thread t draws the four elements of the counter (t, layer, low and high half of step) by Philox4x32-10 (Salmon et al.
// 2011, table 2). It reads nothing and writes 4 bytes for each element; a warp writes 512 contiguous bytes.
#include "device.cuh"

namespace bnkit {

__global__ void __launch_bounds__(threads, 4)
    uniform(float* __restrict__ drawn, index size, unsigned key_low, unsigned key_high, unsigned layer,
            unsigned step_low, unsigned step_high) {
    const index block = static_cast<index>(blockIdx.x) * threads + thread_number();
    if (block * 4 >= size) return;
    unsigned c0 = static_cast<unsigned>(block), c1 = layer, c2 = step_low, c3 = step_high;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ key_low;
        c1 = low1;
        c2 = high0 ^ c3 ^ key_high;
        c3 = low0;
        key_low += 0x9E3779B9u;
        key_high += 0xBB67AE85u;
    }
    const unsigned words[4] = {c0, c1, c2, c3};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (block * 4 + i < size) drawn[block * 4 + i] = static_cast<float>(words[i] >> 8) * 0x1p-24f;
    }
}

}  // namespace bnkit
