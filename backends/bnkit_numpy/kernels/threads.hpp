// A pool of threads for loops whose pieces are fixed by the shape, never by the number of threads.
#pragma once

#include <cstddef>

namespace bnkit {

using index = std::ptrdiff_t;

// The number of threads that a loop may use, the caller's included.
void set_threads(int count);
int get_threads();

// Calls work(context, i) for each i of [0, count), on several threads if the pool is free; returns when all are done.
void parallel_for(index count, void (*work)(const void* context, index i), const void* context);

}  // namespace bnkit
