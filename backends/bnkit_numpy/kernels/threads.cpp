#include "threads.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace bnkit {
namespace {

struct Loop {
    void (*work)(const void*, index);
    const void* context;
    index count;
    std::atomic<index> next{0};

    void run() {
        for (index i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) work(context, i);
    }
};

class Pool {
  public:
    explicit Pool(int helpers) {
        for (int i = 0; i < helpers; ++i) workers_.emplace_back([this] { serve(); });
    }

    ~Pool() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
        }
        wake_.notify_all();
        for (auto& worker : workers_) worker.join();
    }

    int helpers() const { return static_cast<int>(workers_.size()); }

    void run(Loop& loop) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            loop_ = &loop;
            ++round_;
            busy_ = helpers();
        }
        wake_.notify_all();
        loop.run();
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return busy_ == 0; });
    }

  private:
    void serve() {
        index seen = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return stop_ || round_ != seen; });
            if (stop_) return;
            seen = round_;
            Loop* loop = loop_;
            lock.unlock();
            loop->run();
            lock.lock();
            if (--busy_ == 0) done_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::thread> workers_;
    Loop* loop_ = nullptr;
    index round_ = 0;
    int busy_ = 0;
    bool stop_ = false;
};

std::atomic<int> threads{1};
std::mutex* in_use = new std::mutex;  // who holds it owns the pool; others compute alone
Pool* pool = nullptr;                 // never destroyed: at exit its threads may be gone already

// The child of a fork has none of the parent's threads, and perhaps a lock that one of them held.
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

void parallel_for(index count, void (*work)(const void*, index), const void* context) {
    Loop loop{work, context, count};
    const int helpers = static_cast<int>(std::min<index>(threads, count)) - 1;
    std::unique_lock<std::mutex> owner(*in_use, std::defer_lock);
    if (helpers < 1 || !owner.try_lock()) return loop.run();
    if (pool == nullptr || pool->helpers() != threads - 1) {
        delete pool;
        pool = new Pool(threads - 1);
    }
    pool->run(loop);
}

}  // namespace bnkit
