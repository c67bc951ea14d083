#include "threads.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif
#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace bnkit {
namespace {

// The polls for work before a thread sleeps, some tens of microseconds. To wake a thread takes as long, and a kernel
// has two or three loops. Longer polling would take the processor from the caller's other threads.
constexpr int patience = 2000;

void relax() {
#if defined(__SSE2__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ __volatile__("isb");  // about as long as the pause of x86, unlike yield
#endif
}

// A thread's range of a loop, on a separate cache line.
struct alignas(64) Run {
    std::atomic<index> next{0};
    index start = 0, stop = 0;
};

struct Loop {
    void (*work)(const void*, index);
    const void* context;
    bool backwards;
    std::atomic<bool> failed{false};
    std::exception_ptr error{};  // the first error, for the caller

    // Does the thread's range, then helps with the ranges of the others. Throws nothing.
    void run(Run* runs, int threads, int self) {
        try {
            for (int t = 0; t < threads; ++t) {
                Run& from = runs[(self + t) % threads];
                for (index i; !failed && (i = from.next.fetch_add(1, std::memory_order_relaxed)) < from.stop;) {
                    work(context, backwards ? from.start + from.stop - 1 - i : i);
                }
            }
        } catch (...) {
            if (!failed.exchange(true)) error = std::current_exception();
        }
    }
};

class Pool {
  public:
    explicit Pool(int helpers) : helpers_(helpers), runs_(new Run[static_cast<std::size_t>(helpers) + 1]) {
        try {
            for (int i = 0; i < helpers; ++i) workers_.emplace_back([this, i] { serve(i + 1); });
        } catch (const std::system_error&) {  // the system refuses another thread: continue with the existing ones
        }
    }

    ~Pool() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
        }
        wake_.notify_all();
        for (auto& worker : workers_) worker.join();
    }

    int helpers() const { return helpers_; }

    // The caller does not wait for a helper that is late: the loop may be done without it.
    void run(Loop& loop, index count) {
        const int threads = helpers_ + 1;
        for (int t = 0; t < threads; ++t) {
            runs_[t].start = t * count / threads;
            runs_[t].stop = (t + 1) * count / threads;
            runs_[t].next.store(runs_[t].start, std::memory_order_relaxed);
        }
        bool asleep;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            loop_ = &loop;
            round_.fetch_add(1, std::memory_order_release);
            asleep = sleepers_ > 0;
        }
        if (asleep) wake_.notify_all();
        loop.run(runs_.get(), threads, 0);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            loop_ = nullptr;
        }
        for (int i = 0; i < patience && inside_.load(std::memory_order_acquire) > 0; ++i) relax();
        if (inside_.load(std::memory_order_acquire) > 0) {
            std::unique_lock<std::mutex> lock(mutex_);
            done_.wait(lock, [this] { return inside_.load(std::memory_order_acquire) == 0; });
        }
    }

  private:
    void serve(int self) {
        index seen = 0;
        for (;;) {
            for (int i = 0; i < patience && round_.load(std::memory_order_acquire) == seen; ++i) relax();
            Loop* loop;
            {
                std::unique_lock<std::mutex> lock(mutex_);
                ++sleepers_;
                wake_.wait(lock, [&] { return stop_ || round_.load(std::memory_order_relaxed) != seen; });
                --sleepers_;
                if (stop_) return;
                seen = round_.load(std::memory_order_relaxed);
                loop = loop_;
                if (loop == nullptr) continue;
                inside_.fetch_add(1, std::memory_order_relaxed);
            }
            loop->run(runs_.get(), helpers_ + 1, self);
            std::lock_guard<std::mutex> lock(mutex_);
            if (inside_.fetch_sub(1, std::memory_order_release) == 1) done_.notify_one();
        }
    }

    const int helpers_;
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::unique_ptr<Run[]> runs_;
    Loop* loop_ = nullptr;
    std::atomic<index> round_{0};
    std::atomic<int> inside_{0};  // helpers inside the loop
    int sleepers_ = 0;
    bool stop_ = false;
    std::vector<std::thread> workers_;  // last, because the threads use all other members
};

std::atomic<int> threads{1};
std::mutex* in_use = new std::mutex;  // its holder has the pool; other callers use one thread
Pool* pool = nullptr;                 // never destroyed: at exit its threads may already have ended

// After a fork the child lacks the parent's threads, and a lock may still be held by one of them.
void forget_pool() {
    in_use = new std::mutex;
    pool = nullptr;
}

#if !defined(_WIN32)
const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
#endif

}  // namespace

void set_threads(int count) { threads = std::max(count, 1); }

int get_threads() { return threads; }

void parallel_for(index count, bool backwards, void (*work)(const void*, index), const void* context) {
    Loop loop{work, context, backwards};
    const int wanted = threads;
    std::unique_lock<std::mutex> owner(*in_use, std::defer_lock);
    if (count < 2 || wanted < 2 || !owner.try_lock()) {
        Run alone;
        alone.stop = count;
        loop.run(&alone, 1, 0);
    } else {
        if (pool == nullptr || pool->helpers() != wanted - 1) {
            delete pool;
            pool = nullptr;
            pool = new Pool(wanted - 1);
        }
        pool->run(loop, count);
    }
    if (loop.error) std::rethrow_exception(loop.error);
}

}  // namespace bnkit
