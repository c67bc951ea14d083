#include "block.hpp"

#include <chrono>
#include <cstring>
#include <new>
#include <string>
#include <thread>

#include "checker.hpp"
#include "shared_memory.hpp"

namespace cuda_host {
namespace {

thread_local Fiber* running = nullptr;

std::string text(const uint3& at) {
    return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")";
}

uint3 place(unsigned linear, const unsigned (&size)[3]) {
    return {linear % size[0], linear / size[0] % size[1], linear / size[0] / size[1]};
}

}  // namespace

Fiber& running_fiber() { return *running; }
bool a_fiber_runs() { return running != nullptr; }

Block::Block(Grid& g, unsigned r, unsigned l)
    : grid(g), rank(r), linear(l), size(g.launch.block[0] * g.launch.block[1] * g.launch.block[2]),
      fibers_(new Fiber[size]), meetings_((size + 31) / 32), finished_lanes_(meetings_.size()),
      order_(ordered(size, g.launch.order)), draws_(g.launch.seed * 0x10001 + l) {
    const Launch& launch = grid.launch;
    for (unsigned i = 0; i < size; ++i) {
        Fiber& fiber = fibers_[i];
        fiber.block = this;
        fiber.number = i;
        fiber.stack = take_stack();
        unsigned char* top = fiber.stack.low + Stack::bytes - sizeof(Thread) - 64;
        fiber.thread = new (top) Thread{place(i, launch.block), place(linear, launch.grid),
                                        dim3(launch.block[0], launch.block[1], launch.block[2]),
                                        dim3(launch.grid[0], launch.grid[1], launch.grid[2])};
        prepare(fiber.context, fiber.stack, top, &Block::enter);
    }
}

Block::~Block() {
    for (unsigned i = 0; i < size; ++i) give_back_stack(fibers_[i].stack);
}

void Block::enter() {
    Fiber& fiber = *running;
    Block& block = *fiber.block;
    arrive_first(block.scheduler_);
    block.grid.launch.call(block.grid.launch.arguments);
    fiber.state = State::finished;
    ++block.finished_;
    block.finished_lanes_[fiber.number / 32] |= 1u << fiber.number % 32;
    block.leave(fiber);
}

void Block::run() {
    constexpr unsigned patience = 2000;
    poison_shared_memory(grid.launch.shared_bytes);
    if (grid.checker) grid.checker->begin(*this);
    unsigned fruitless = 0;  // rounds in which threads only found that they must wait
    while (finished_ < size) {
        if (grid.launch.order == Order::random) draws_.shuffle(order_);
        bool advanced = false, yielded = false;
        for (const unsigned i : order_) {
            Fiber& fiber = fibers_[i];
            if (fiber.state != State::ready) continue;
            fiber.yielded = false;
            running = &fiber;
            switch_context(scheduler_, fiber.context);
            running = nullptr;
            if (!grid.failed() && fiber.stack.overrun()) grid.fail("a thread overran its stack " + where(fiber));
            if (grid.failed()) return;
            (fiber.yielded ? yielded : advanced) = true;
        }
        if (release() || advanced) {
            fruitless = 0;
        } else if (yielded && ++fruitless < patience) {
            // Others may be at work meanwhile, on a busy machine for long.
            if (grid.launch.workers > 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
            if (grid.launch.cooperative) grid.give_way(rank);
        } else if (finished_ < size) {
            report_deadlock();
        }
        if (grid.failed()) return;
    }
    const std::string overrun = overrun_shared_array(grid.launch.shared_bytes);
    if (!overrun.empty()) {
        const std::string who = "block " + text(fibers_[0].thread->block);
        grid.fail("out of bounds: " + who + " wrote behind the shared array " + overrun);
    }
}

// Whether a barrier is complete, and its threads are ready again.
bool Block::release() {
    if (waiting_ + finished_ < size || waiting_ == 0) return false;
    const unsigned at_grid = count(State::at_grid_barrier);
    const Fiber* first = nullptr;
    for (unsigned i = 0; i < size; ++i) {
        const Fiber& fiber = fibers_[i];
        if (fiber.state == State::finished) continue;
        if (first == nullptr) first = &fiber;
        if (fiber.line == first->line && std::strcmp(fiber.file, first->file) == 0) continue;
        grid.fail("divergent barrier: threads of a block wait in different places, " + where(*first) + " and " +
                  where(fiber));
        return false;
    }
    if (finished_ > 0) {
        grid.fail("divergent barrier: " + std::to_string(finished_) + " threads of the block have returned, " +
                  std::to_string(waiting_) + " wait, one of them " + where(*first));
        return false;
    }
    if (at_grid > 0) {
        grid.arrive(rank);
    } else if (grid.checker) {
        grid.checker->block_barrier(*this);
    }
    last_predicates_ = predicates_;
    waiting_ = predicates_ = 0;
    for (unsigned i = 0; i < size; ++i) fibers_[i].state = State::ready;
    return true;
}

void Block::report_deadlock() {
    std::string message = "deadlock: of the " + std::to_string(size) + " threads of block " +
                          text(fibers_[0].thread->block) + " " + std::to_string(waiting_) + " wait at a barrier, " +
                          std::to_string(count(State::in_warp)) + " within a warp, " +
                          std::to_string(count(State::ready)) + " in a loop, " + std::to_string(finished_) +
                          " have returned";
    for (const State state : {State::at_block_barrier, State::in_warp, State::ready}) {
        for (unsigned i = 0; i < size; ++i) {
            if (fibers_[i].state != state) continue;
            message += "; " + where(fibers_[i]);
            break;
        }
    }
    grid.fail(message);
}

std::string Block::where(const Fiber& fiber) const {
    std::string message = "[block " + text(fiber.thread->block) + ", thread " + text(fiber.thread->index);
    if (fiber.file != nullptr) {
        const std::string file = fiber.file;
        message += ", " + file.substr(file.rfind('/') + 1);
        if (fiber.line > 0) message += ":" + std::to_string(fiber.line);
    }
    return message + "]";
}

unsigned Block::count(State state) const {
    unsigned result = 0;
    for (unsigned i = 0; i < size; ++i) result += fibers_[i].state == state;
    return result;
}

void Block::leave(Fiber& fiber) { switch_context(fiber.context, scheduler_); }

// The fiber is not entered again. Its frames hold nothing that must be freed: a kernel has no destructors that matter.
void Block::fail(Fiber& fiber, const std::string& message) {
    grid.fail(message + " " + where(fiber));
    for (;;) leave(fiber);
}

void Block::barrier(Fiber& fiber, const char* file, int line) {
    fiber.file = file;
    fiber.line = line;
    fiber.state = State::at_block_barrier;
    ++waiting_;
    leave(fiber);
    fiber.file = nullptr;
}

int Block::barrier_count(Fiber& fiber, bool predicate, const char* file, int line) {
    predicates_ += predicate;
    barrier(fiber, file, line);
    return int(last_predicates_);
}

void Block::grid_barrier(Fiber& fiber) {
    if (!grid.launch.cooperative) fail(fiber, "the barrier of the grid needs a cooperative launch");
    fiber.file = "the barrier of the grid";
    fiber.line = 0;
    fiber.state = State::at_grid_barrier;
    ++waiting_;
    leave(fiber);
    fiber.file = nullptr;
}

Meeting& Block::meet(Fiber& fiber, unsigned mask, WarpCall call, const void* value, std::size_t bytes, bool predicate) {
    static const char* const names[] = {"__syncwarp",     "__shfl_sync",   "__shfl_xor_sync", "__shfl_down_sync",
                                        "__shfl_up_sync", "__ballot_sync", "__any_sync",      "__all_sync"};
    auto refuse = [&](const std::string& why) { fail(fiber, names[int(call)] + (": " + why)); };
    const unsigned warp = fiber.number / 32, lane = fiber.number % 32;
    if ((mask >> lane & 1) == 0) refuse("the mask does not name the lane that calls");
    const unsigned lanes = mask & lanes_of(warp);
    Meeting* meeting = nullptr;
    for (auto& known : meetings_[warp]) {
        if (known->mask == lanes) meeting = known.get();
    }
    if (meeting == nullptr) {
        meeting = meetings_[warp].emplace_back(new Meeting).get();
        meeting->mask = lanes;
    }
    if ((finished_lanes_[warp] & lanes) != 0) refuse("the mask names a lane that has returned");
    if (meeting->arrived == 0) meeting->call = call;
    if (meeting->call != call) refuse(std::string("other lanes of the mask are at ") + names[int(meeting->call)]);
    const std::uint64_t number = meeting->number;
    unsigned& ballot = meeting->ballot[number % 2];
    if (meeting->arrived == 0) ballot = 0;
    ballot |= unsigned(predicate) << lane;
    if (bytes > 0) std::memcpy(meeting->values[number % 2][lane], value, bytes);
    meeting->arrived |= 1u << lane;
    if (meeting->arrived != lanes) {
        fiber.file = names[int(call)];
        fiber.line = 0;
        fiber.state = State::in_warp;
        leave(fiber);
        fiber.file = nullptr;
    } else {
        meeting->arrived = 0;
        ++meeting->number;
        if (grid.checker && call == WarpCall::synchronize) grid.checker->warp_barrier(*this, warp, lanes);
        for (unsigned other = 0; other < 32; ++other) {
            Fiber* f = &fibers_[32 * warp + other];
            if ((lanes >> other & 1) != 0 && f->state == State::in_warp && other != lane) f->state = State::ready;
        }
    }
    return *meeting;
}

}  // namespace cuda_host
