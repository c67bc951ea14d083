// A CUDA thread, and what the runtime does for it. Implemented in ../runtime, which is compiled apart: the compiler's
// instrumentation of a kernel must not instrument what watches it.
#pragma once

#include <cstddef>

#include "language.hpp"

namespace cuda_host {

struct Thread {
    uint3 index, block;
    dim3 block_size, grid_size;
};

// The one whose code this is. const: a kernel stays in its fiber, so one call serves all of a function.
__attribute__((const)) const Thread& current();

[[noreturn]] void fail(const char* message);  // ends the launch, of which it is the error

void block_barrier(const char* file, int line);
int block_barrier_count(bool predicate, const char* file, int line);  // how many threads came with true
void grid_barrier();
void fence(bool beyond_block);
void yield();               // lets others run: within a loop that waits for them
void before_atomic();       // lets others run there in a schedule at random

enum class WarpCall { synchronize, shuffle, shuffle_xor, shuffle_down, shuffle_up, ballot, any, all };

__attribute__((const)) unsigned lane();
void warp_barrier(unsigned mask);
unsigned warp_ballot(unsigned mask, bool predicate, WarpCall call);
// What lane `source` gave as `value`, at most 16 bytes.
void warp_shuffle(unsigned mask, unsigned source, const void* value, void* result, std::size_t bytes, WarpCall call);

}  // namespace cuda_host

#define threadIdx (::cuda_host::current().index)
#define blockIdx (::cuda_host::current().block)
#define blockDim (::cuda_host::current().block_size)
#define gridDim (::cuda_host::current().grid_size)
#define warpSize 32
