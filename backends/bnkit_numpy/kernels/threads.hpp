// A pool of threads for loops whose pieces are fixed by the shape, never by the number of threads.
#pragma once

#include <cstddef>

namespace bnkit {

using index = std::ptrdiff_t;

// The number of threads that a loop may use, the caller's included.
void set_threads(int count);
int get_threads();

// Calls work(context, i) for each i of [0, count), on several threads if the pool is free; returns when all are done.
//
// Each thread has a run of the indices, the same in every loop of as many, so that it meets again in the second pass of
// a kernel what its own cache holds from the first; `backwards` it goes through its run from the end. One that is done
// takes from the others. What a piece of work throws is thrown once all threads have left the loop.
void parallel_for(index count, bool backwards, void (*work)(const void* context, index i), const void* context);

}  // namespace bnkit
