#include "shared_memory.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

// One thread-local variable whose place is known, and so that of all: offsets are the symbol table's.
extern "C" {
thread_local unsigned char cuda_host_anchor = 0;
}

namespace cuda_host {

SharedTable shared_table;

unsigned char* shared_base() { return &cuda_host_anchor - shared_table.anchor_offset; }

namespace {

// A NaN in every floating type too, but not what an array is filled with: a kernel may well copy that.
constexpr unsigned char guard_pattern[] = {0xf1, 0x7f};

std::size_t guard_bytes(const SharedArray& array, std::size_t bytes) {
    return array.dynamic ? std::min<std::size_t>(4096, array.bytes - bytes) + shared_guard_bytes : shared_guard_bytes;
}

}  // namespace

void poison_shared_memory(std::size_t dynamic_bytes) {
    for_each_shared_array(dynamic_bytes, [](const SharedArray& array, unsigned char* p, std::size_t bytes) {
        std::memset(p, 0xff, bytes);
        const std::size_t guard = guard_bytes(array, bytes);
        for (std::size_t i = 0; i < guard; ++i) p[bytes + i] = guard_pattern[i % 2];
    });
}

std::string overrun_shared_array(std::size_t dynamic_bytes) {
    std::string found;
    for_each_shared_array(dynamic_bytes, [&](const SharedArray& array, unsigned char* p, std::size_t bytes) {
        const std::size_t guard = guard_bytes(array, bytes);
        for (std::size_t i = 0; i < guard; ++i) {
            if (p[bytes + i] != guard_pattern[i % 2]) found = array.name;
        }
    });
    return found;
}

const SharedArray* shared_array_of(const void* address, std::size_t size, std::size_t dynamic_bytes) {
    const SharedArray* found = nullptr;
    for_each_shared_array(dynamic_bytes, [&](const SharedArray& array, unsigned char* p, std::size_t bytes) {
        const std::size_t at = std::uintptr_t(address) - std::uintptr_t(p);
        if (at < bytes && size <= bytes - at) found = &array;
    });
    return found;
}

}  // namespace cuda_host

extern "C" __attribute__((visibility("default"))) void cuda_host_shared_arrays(const cuda_host::SharedArray* arrays,
                                                                               std::size_t count,
                                                                               std::size_t anchor_offset) {
    cuda_host::shared_table = {arrays, count, anchor_offset};
}
