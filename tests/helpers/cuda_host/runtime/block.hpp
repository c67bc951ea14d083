// A block: its threads as fibers of one OS thread, each run until it must wait.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../shim/thread.hpp"
#include "fiber.hpp"
#include "grid.hpp"

namespace cuda_host {

class Block;

enum class State { ready, at_block_barrier, at_grid_barrier, in_warp, finished };

struct Fiber {
    const Thread* thread = nullptr;  // on the fiber's own stack, where the kernel may read it
    Block* block = nullptr;
    unsigned number = 0;
    State state = State::ready;
    bool yielded = false;  // ran, but only to find that it must wait for others
    unsigned atomics = 0;  // since it last let others run
    const char* file = nullptr;
    int line = 0;
    Context context;
    Stack stack;
};

// Where the lanes of one mask meet, time after time. What they bring lies at number % 2: a lane may come to the next
// meeting before another has read what it has from the last, for which the number has already moved on.
struct Meeting {
    unsigned mask = 0, arrived = 0, ballot[2] = {0, 0};
    std::uint64_t number = 0;
    WarpCall call = WarpCall::synchronize;
    unsigned char values[2][32][8];
};

class Block {
  public:
    Block(Grid& grid, unsigned rank, unsigned linear);
    ~Block();

    void run();

    // For the fiber that runs.
    [[noreturn]] void fail(Fiber& fiber, const std::string& message);
    void leave(Fiber& fiber);  // until it is its turn again
    void barrier(Fiber& fiber, const char* file, int line);
    int barrier_count(Fiber& fiber, bool predicate, const char* file, int line);
    void grid_barrier(Fiber& fiber);
    Meeting& meet(Fiber& fiber, unsigned mask, WarpCall call, const void* value, std::size_t bytes, bool predicate);
    bool draws_a_pause() { return grid.launch.order == Order::random && draws_.below(4) == 0; }

    Grid& grid;
    const unsigned rank, linear, size;

  private:
    static void enter();
    bool release();
    void report_deadlock();
    std::string where(const Fiber& fiber) const;
    unsigned lanes_of(unsigned warp) const { return size - 32 * warp < 32 ? (1u << (size - 32 * warp)) - 1 : ~0u; }
    unsigned count(State state) const;

    std::unique_ptr<Fiber[]> fibers_;
    std::vector<std::vector<std::unique_ptr<Meeting>>> meetings_;  // by warp
    std::vector<unsigned> finished_lanes_;
    std::vector<unsigned> order_;
    Draws draws_;
    Context scheduler_;
    unsigned finished_ = 0, waiting_ = 0, predicates_ = 0, last_predicates_ = 0;
};

Fiber& running_fiber();
bool a_fiber_runs();

}  // namespace cuda_host
