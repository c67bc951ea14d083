// Watches every load and store of a checked launch, as the compiler's instrumentation reports them: outside the arrays
// that it was given, of shared memory that nothing has written, and two of one byte of which neither comes first.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "block.hpp"

namespace cuda_host {

// When and by whom a byte was accessed. All accesses of a thread between two of its fences have one time.
struct Stamp {
    std::uint32_t block = 0, epoch = 0;  // epoch: how many barriers the block had passed
    std::uint16_t thread = 0;
    bool atomic = false, valid = false;
    std::uint32_t time = 0;

    bool same_thread(const Stamp& other) const { return block == other.block && thread == other.thread; }
};

// Which accesses come before whatever a thread does now.
struct Knowledge {
    std::unordered_map<std::uint32_t, std::uint32_t> epochs;  // of a block: those before this epoch
    std::unordered_map<std::uint64_t, std::uint32_t> times;   // of one of its threads: those up to this time

    void join(const Knowledge& other);
    bool has(const Stamp& stamp) const;
};

class Checker {
  public:
    explicit Checker(const Launch& launch);

    void begin(Block& block);
    void load(const void* p, std::size_t bytes, const void* code) { access(p, bytes, false, false, code); }
    void store(const void* p, std::size_t bytes, const void* code) { access(p, bytes, true, false, code); }
    void atomic(const void* p, std::size_t bytes, const void* code);
    void fence(Fiber& fiber);
    void block_barrier(Block& block);
    void warp_barrier(Block& block, unsigned warp, unsigned lanes);
    void grid_barrier();

  private:
    struct Byte {
        Stamp written, read[2];
        bool initialized = false;
    };
    struct OfThread {
        std::uint32_t time = 0;
        bool fenced = false;  // since the last barrier
        Knowledge known, seen, published;  // seen: by atomics, and known from the next fence on
    };
    struct OfBlock {
        std::uint32_t epoch = 0;
        Knowledge known, published;  // since a barrier, whichever of its threads knew and fenced it before
        std::vector<OfThread> threads;
    };

    void access(const void* p, std::size_t bytes, bool write, bool atomic, const void* code);
    void check_bounds(Fiber& fiber, const void* p, std::size_t bytes, bool write, const void* code);
    bool before(const Stamp& stamp, const Stamp& now, const OfBlock& block) const;
    [[noreturn]] void report(Fiber& fiber, const std::string& what, const void* p, const void* code,
                             const Stamp* other = nullptr);
    static std::uint64_t key(std::uint32_t block, unsigned thread) { return std::uint64_t(block) << 16 | thread; }

    const Launch& launch_;
    std::unordered_map<std::uint32_t, OfBlock> blocks_;
    std::unordered_map<std::uintptr_t, std::unique_ptr<Byte[]>> pages_;
    std::unordered_map<std::uintptr_t, Knowledge> released_;  // by the address of an atomic
};

}  // namespace cuda_host
