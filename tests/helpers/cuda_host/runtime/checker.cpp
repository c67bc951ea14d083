#include "checker.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>

#include "module_image.hpp"
#include "shared_memory.hpp"

namespace cuda_host {
namespace {

constexpr std::uintptr_t page_bytes = 256;

std::string name_of(const Stamp& stamp) {
    return "thread " + std::to_string(stamp.thread) + " of block " + std::to_string(stamp.block);
}

}  // namespace

void Knowledge::join(const Knowledge& other) {
    for (const auto& [block, epoch] : other.epochs) epochs[block] = std::max(epochs[block], epoch);
    for (const auto& [thread, time] : other.times) times[thread] = std::max(times[thread], time);
}

bool Knowledge::has(const Stamp& stamp) const {
    const auto epoch = epochs.find(stamp.block);
    if (epoch != epochs.end() && stamp.epoch < epoch->second) return true;
    const auto time = times.find(std::uint64_t(stamp.block) << 16 | stamp.thread);
    return time != times.end() && stamp.time <= time->second;
}

Checker::Checker(const Launch& launch) : launch_(launch) {}

// The shared memory was that of another block before.
void Checker::begin(Block& block) {
    blocks_[block.linear].threads.resize(block.size);
    for_each_shared_array(launch_.shared_bytes, [&](const SharedArray&, const unsigned char* p, std::size_t bytes) {
        const std::uintptr_t first = std::uintptr_t(p) / page_bytes, last = std::uintptr_t(p + bytes) / page_bytes;
        for (std::uintptr_t page = first; page <= last; ++page) pages_.erase(page);
    });
}

void Checker::access(const void* p, std::size_t bytes, bool write, bool atomic, const void* code) {
    Fiber& fiber = running_fiber();
    if (fiber.stack.holds(p)) return;
    check_bounds(fiber, p, bytes, write, code);
    const OfBlock& block = blocks_[fiber.block->linear];
    Stamp now;
    now.block = fiber.block->linear;
    now.thread = std::uint16_t(fiber.number);
    now.epoch = block.epoch;
    now.time = block.threads[fiber.number].time;
    now.atomic = atomic;
    now.valid = true;
    const bool shared = shared_array_of(p, bytes, launch_.shared_bytes) != nullptr;
    for (std::uintptr_t address = std::uintptr_t(p), end = address + bytes; address < end; ++address) {
        auto& page = pages_[address / page_bytes];
        if (!page) page.reset(new Byte[page_bytes]);
        Byte& byte = page[address % page_bytes];
        const void* at = reinterpret_cast<const void*>(address);
        if (shared && !write && !byte.initialized) {
            report(fiber, "reads shared memory that nothing has written", at, code);
        }
        if (!before(byte.written, now, block)) {
            const char* what = write ? "writes what another thread has written" : "reads what another thread writes";
            report(fiber, what, at, code, &byte.written);
        }
        for (Stamp& read : byte.read) {
            if (write && !before(read, now, block)) report(fiber, "writes what another thread reads", at, code, &read);
        }
        if (write) {
            byte.written = now;
            byte.initialized = true;
        } else {
            // Two of the readers are kept, of different threads, so that one is not the thread that writes next.
            Stamp& slot = byte.read[byte.read[0].valid && !byte.read[0].same_thread(now)];
            slot = now;
        }
    }
}

bool Checker::before(const Stamp& stamp, const Stamp& now, const OfBlock& block) const {
    if (!stamp.valid || stamp.same_thread(now) || (stamp.atomic && now.atomic)) return true;
    if (stamp.block == now.block && stamp.epoch < now.epoch) return true;
    return block.known.has(stamp) || block.threads[now.thread].known.has(stamp);
}

void Checker::check_bounds(Fiber& fiber, const void* p, std::size_t bytes, bool write, const void* code) {
    const auto inside = [&](const Range& array) {
        const std::size_t at = std::uintptr_t(p) - std::uintptr_t(array.first);
        return at < array.bytes && bytes <= array.bytes - at;
    };
    if (std::any_of(launch_.arrays, launch_.arrays + launch_.array_count, inside)) return;
    if (shared_array_of(p, bytes, launch_.shared_bytes) != nullptr) return;
    if (!write && module_image_holds(p)) return;  // constants
    report(fiber, write ? "out of bounds: writes memory that it was not given"
                        : "out of bounds: reads memory that it was not given", p, code);
}

void Checker::atomic(const void* p, std::size_t bytes, const void* code) {
    access(p, bytes, true, true, code);
    Fiber& fiber = running_fiber();
    if (fiber.stack.holds(p)) return;
    OfBlock& block = blocks_[fiber.block->linear];
    OfThread& thread = block.threads[fiber.number];
    Knowledge& released = released_[std::uintptr_t(p)];
    thread.seen.join(released);
    released.join(block.published);
    if (thread.fenced) released.join(thread.published);
}

// What came before it is published by the atomics that follow it; what atomics have seen is known after it.
void Checker::fence(Fiber& fiber) {
    OfBlock& block = blocks_[fiber.block->linear];
    OfThread& thread = block.threads[fiber.number];
    thread.known.join(thread.seen);
    thread.seen = Knowledge();
    thread.published = block.known;
    thread.published.join(thread.known);
    thread.published.epochs[fiber.block->linear] = block.epoch;
    thread.published.times[key(fiber.block->linear, fiber.number)] = thread.time++;
    thread.fenced = true;
}

void Checker::block_barrier(Block& block) {
    OfBlock& here = blocks_[block.linear];
    for (OfThread& thread : here.threads) {
        here.known.join(thread.known);
        thread.known = Knowledge();
        if (thread.fenced) here.published.join(thread.published);
        thread.fenced = false;
    }
    ++here.epoch;
}

void Checker::warp_barrier(Block& block, unsigned warp, unsigned lanes) {
    OfBlock& here = blocks_[block.linear];
    Knowledge joined;
    for (unsigned lane = 0; lane < 32; ++lane) {
        if ((lanes >> lane & 1) == 0) continue;
        OfThread& thread = here.threads[32 * warp + lane];
        joined.join(thread.known);
        joined.times[key(block.linear, 32 * warp + lane)] = thread.time++;
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
        if ((lanes >> lane & 1) != 0) here.threads[32 * warp + lane].known = joined;
    }
}

// All that was done comes before all that will be.
void Checker::grid_barrier() {
    for (auto& [number, page] : pages_) {
        for (std::uintptr_t i = 0; i < page_bytes; ++i) {
            page[i].written = page[i].read[0] = page[i].read[1] = Stamp();
        }
    }
}

void Checker::report(Fiber& fiber, const std::string& what, const void* p, const void* code, const Stamp* other) {
    std::string message = what;
    if (other != nullptr) {
        message = "race: " + what + (other->atomic ? " atomically" : "");
        message += ", with nothing that orders them: " + name_of(*other);
    }
    if (const SharedArray* array = shared_array_of(p, 1, launch_.shared_bytes)) {
        message += std::string(", in ") + array->name;
    } else {
        for (std::size_t i = 0; i < launch_.array_count; ++i) {
            const std::size_t at = std::uintptr_t(p) - std::uintptr_t(launch_.arrays[i].first);
            if (at < launch_.arrays[i].bytes) {
                message += ", in argument " + std::to_string(launch_.arrays[i].argument);
                message += " at byte " + std::to_string(at);
            }
        }
    }
    char place[64] = "";
    Dl_info info;
    if (dladdr(code, &info) != 0) {
        const auto offset = std::uintptr_t(code) - std::uintptr_t(info.dli_fbase) - 1;  // within the call
        std::snprintf(place, sizeof place, " <code 0x%zx>", std::size_t(offset));
    }
    fiber.block->fail(fiber, message + place);
}

}  // namespace cuda_host
