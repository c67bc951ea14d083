// A launch: its blocks, the order they run in, the turns of those that are resident together, and its first error.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../shim/thread.hpp"

namespace cuda_host {

class Checker;

enum class Order : int { forward, reverse, random };

struct Range {
    const void* first;
    std::size_t bytes;
    int argument;  // of the kernel; the first where arrays overlap
};

// What host_module.py fills in.
struct Launch {
    void (*call)(void**);
    void** arguments;
    unsigned grid[3], block[3];
    std::size_t shared_bytes;
    int cooperative, checked;
    Order order;
    unsigned workers;  // how many blocks run at the same time
    std::uint64_t seed;
    const Range* arrays;
    std::size_t array_count;
    char* error;
    std::size_t error_bytes;
};

// SplitMix64: the draws of a schedule at random.
class Draws {
  public:
    explicit Draws(std::uint64_t seed) : state_(seed) {}
    unsigned below(unsigned bound) { return unsigned((next() >> 32) * bound >> 32); }
    void shuffle(std::vector<unsigned>& order);

  private:
    std::uint64_t next();
    std::uint64_t state_;
};

std::vector<unsigned> ordered(unsigned count, Order order);  // Order::random: as forward, for the caller to shuffle

class Grid {
  public:
    explicit Grid(const Launch& launch);
    ~Grid();

    void run();

    void fail(const std::string& message);  // the first one counts
    bool failed() const { return failed_.load(std::memory_order_relaxed); }
    const std::string& error() const { return error_; }

    // For a block of a cooperative launch. They return when it is its turn again, or the launch has failed.
    void give_way(unsigned rank);
    void arrive(unsigned rank);

    const Launch& launch;
    const std::unique_ptr<Checker> checker;  // null unless the launch is checked

  private:
    void run_one_after_another();
    void run_resident();
    void dispatch();
    void wait_for_turn(std::unique_lock<std::mutex>& lock, unsigned rank);
    void finish(unsigned rank);
    void fail_if_never_reached();

    std::vector<unsigned> blocks_;  // in the order of the schedule: by rank
    std::atomic<unsigned> next_{0};
    std::atomic<bool> failed_{false};
    std::string error_;

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<unsigned> ready_;
    std::vector<unsigned> arrived_;
    std::vector<char> has_turn_;
    unsigned running_ = 0, finished_ = 0;
    Draws draws_;
};

}  // namespace cuda_host
