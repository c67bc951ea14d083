#include "grid.hpp"

#include <algorithm>
#include <thread>

#include "block.hpp"
#include "checker.hpp"

namespace cuda_host {

std::uint64_t Draws::next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

void Draws::shuffle(std::vector<unsigned>& order) {
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[below(unsigned(i))]);
}

std::vector<unsigned> ordered(unsigned count, Order order) {
    std::vector<unsigned> result(count);
    for (unsigned i = 0; i < count; ++i) result[i] = order == Order::reverse ? count - 1 - i : i;
    return result;
}

Grid::Grid(const Launch& l)
    : launch(l), checker(l.checked ? new Checker(l) : nullptr),
      blocks_(ordered(l.grid[0] * l.grid[1] * l.grid[2], l.order)), draws_(l.seed) {
    if (launch.order == Order::random) draws_.shuffle(blocks_);
}

Grid::~Grid() = default;

void Grid::fail(const std::string& message) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!failed_.exchange(true)) error_ = message;
    changed_.notify_all();
}

void Grid::run() {
    if (launch.cooperative) {
        run_resident();
    } else {
        run_one_after_another();
    }
}

void Grid::run_one_after_another() {
    const unsigned count = unsigned(blocks_.size());
    auto work = [&] {
        for (unsigned rank; !failed() && (rank = next_.fetch_add(1)) < count;) Block(*this, rank, blocks_[rank]).run();
    };
    std::vector<std::thread> helpers;
    for (unsigned i = 1; i < std::min(launch.workers, count); ++i) helpers.emplace_back(work);
    work();
    for (auto& helper : helpers) helper.join();
}

void Grid::run_resident() {
    const unsigned count = unsigned(blocks_.size());
    has_turn_.assign(count, 0);
    for (unsigned rank = 0; rank < count; ++rank) ready_.push_back(rank);
    dispatch();
    std::vector<std::thread> threads;
    for (unsigned rank = 0; rank < count; ++rank) {
        threads.emplace_back([this, rank] {
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wait_for_turn(lock, rank);
            }
            if (!failed()) Block(*this, rank, blocks_[rank]).run();
            finish(rank);
        });
    }
    for (auto& thread : threads) thread.join();
}

// Turns go to ranks, whichever thread the system has started first: so one worker gives the same run each time.
void Grid::dispatch() {
    while (running_ < launch.workers && !ready_.empty()) {
        has_turn_[ready_.front()] = 1;
        ready_.pop_front();
        ++running_;
    }
    changed_.notify_all();
}

void Grid::wait_for_turn(std::unique_lock<std::mutex>& lock, unsigned rank) {
    changed_.wait(lock, [&] { return has_turn_[rank] || failed(); });
}

void Grid::give_way(unsigned rank) {
    std::unique_lock<std::mutex> lock(mutex_);
    has_turn_[rank] = 0;
    --running_;
    ready_.push_back(rank);
    dispatch();
    wait_for_turn(lock, rank);
}

void Grid::arrive(unsigned rank) {
    std::unique_lock<std::mutex> lock(mutex_);
    has_turn_[rank] = 0;
    --running_;
    arrived_.push_back(rank);
    if (arrived_.size() == blocks_.size()) {
        if (checker) checker->grid_barrier();
        std::sort(arrived_.begin(), arrived_.end());
        if (launch.order == Order::random) draws_.shuffle(arrived_);
        ready_.assign(arrived_.begin(), arrived_.end());
        arrived_.clear();
    }
    fail_if_never_reached();
    dispatch();
    wait_for_turn(lock, rank);
}

void Grid::finish(unsigned rank) {
    std::unique_lock<std::mutex> lock(mutex_);
    has_turn_[rank] = 0;
    --running_;
    ++finished_;
    fail_if_never_reached();
    dispatch();
}

void Grid::fail_if_never_reached() {
    if (!arrived_.empty() && finished_ > 0 && !failed_.exchange(true)) {
        error_ = "divergent barrier: " + std::to_string(arrived_.size()) + " blocks wait at the barrier of the grid, " +
                 std::to_string(finished_) + " have returned without it";
    }
}

}  // namespace cuda_host

extern "C" __attribute__((visibility("default"))) int cuda_host_launch(const cuda_host::Launch* launch) {
    std::string error;
    try {
        cuda_host::Grid grid(*launch);
        grid.run();
        if (!grid.failed()) return 0;
        error = grid.error();
    } catch (const std::exception& exception) {
        error = exception.what();
    }
    error.resize(std::min(error.size(), launch->error_bytes - 1));
    error.copy(launch->error, error.size());
    launch->error[error.size()] = '\0';
    return 1;
}
