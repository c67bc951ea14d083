// What shim/thread.hpp promises a kernel, done for the fiber that runs.
#include <atomic>
#include <cstring>
#include <string>

#include "block.hpp"
#include "checker.hpp"

namespace cuda_host {

const Thread& current() { return *running_fiber().thread; }

void fail(const char* message) {
    Fiber& fiber = running_fiber();
    fiber.block->fail(fiber, message);
}

void block_barrier(const char* file, int line) {
    Fiber& fiber = running_fiber();
    fiber.block->barrier(fiber, file, line);
}

int block_barrier_count(bool predicate, const char* file, int line) {
    Fiber& fiber = running_fiber();
    return fiber.block->barrier_count(fiber, predicate, file, line);
}

void grid_barrier() {
    Fiber& fiber = running_fiber();
    fiber.block->grid_barrier(fiber);
}

void fence(bool beyond_block) {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    Fiber& fiber = running_fiber();
    if (fiber.block->grid.checker && beyond_block) fiber.block->grid.checker->fence(fiber);
}

void yield() {
    Fiber& fiber = running_fiber();
    fiber.atomics = 0;
    fiber.yielded = true;
    fiber.block->leave(fiber);
}

void before_atomic() {
    constexpr unsigned many = 100;  // one that waits in a loop of atomics must let the others run
    Fiber& fiber = running_fiber();
    if (++fiber.atomics > many) yield();
    if (fiber.block->draws_a_pause()) fiber.block->leave(fiber);
}

unsigned lane() { return running_fiber().number % 32; }

void warp_barrier(unsigned mask) {
    Fiber& fiber = running_fiber();
    fiber.block->meet(fiber, mask, WarpCall::synchronize, nullptr, 0, false);
}

unsigned warp_ballot(unsigned mask, bool predicate, WarpCall call) {
    Fiber& fiber = running_fiber();
    const Meeting& meeting = fiber.block->meet(fiber, mask, call, nullptr, 0, predicate);
    return meeting.ballot[(meeting.number + 1) % 2];
}

void warp_shuffle(unsigned mask, unsigned source, const void* value, void* result, std::size_t bytes, WarpCall call) {
    Fiber& fiber = running_fiber();
    const Meeting& meeting = fiber.block->meet(fiber, mask, call, value, bytes, false);
    if ((meeting.mask >> source & 1) == 0) {
        fail(("a shuffle reads lane " + std::to_string(source) + ", which its mask or the block has not").c_str());
    }
    std::memcpy(result, meeting.values[(meeting.number + 1) % 2][source], bytes);
}

}  // namespace cuda_host
