// A pool of threads for loops. The shape fixes the tasks, never the number of threads.
#pragma once

#include <cstddef>

namespace bnkit {

using index = std::ptrdiff_t;

// The number of threads that a loop may use, including the caller's.
void set_threads(int count);
int get_threads();

// Calls work(context, i) for each i of [0, count), on several threads if the pool is free; returns when all are done.
//
// Each thread begins with its range of the indices, which is the same in every loop of this count: in the second pass
// of a kernel it reads from its cache what it read in the first. `backwards` reverses each range. A thread that has
// finished its range helps the others. An exception of a task is thrown again after all threads have left the loop.
void parallel_for(index count, bool backwards, void (*work)(const void* context, index i), const void* context);

// parallel_for with a callable. It is static, because each SIMD level needs its copy.
template <typename Work> static inline void in_parallel(index count, const Work& work, bool backwards = false) {
    if (count == 1) return work(0);
    const auto call = [](const void* context, index i) { (*static_cast<const Work*>(context))(i); };
    parallel_for(count, backwards, call, &work);
}

}  // namespace bnkit
