// The shared memory of the block that runs on this OS thread: the __shared__ arrays of the module are thread-local.
#pragma once

#include <cstddef>
#include <string>

namespace cuda_host {

// An array as host_module.py found it in the symbol table. A guard lies behind each.
struct SharedArray {
    std::size_t offset, bytes;
    const char* name;
    int dynamic;  // 1: as large as the launch says, and its guard is the rest
};

constexpr std::size_t shared_guard_bytes = 64;

// Every byte becomes 0xff: a NaN in every floating type, and -1 as an integer: a large index would end the process.
void poison_shared_memory(std::size_t dynamic_bytes);

// The array behind which something was written; empty where none.
std::string overrun_shared_array(std::size_t dynamic_bytes);

// The array that holds all of these bytes, or null.
const SharedArray* shared_array_of(const void* p, std::size_t bytes, std::size_t dynamic_bytes);

struct SharedTable {
    const SharedArray* arrays = nullptr;
    std::size_t count = 0, anchor_offset = 0;
};
extern SharedTable shared_table;
unsigned char* shared_base();

// Calls visit(array, first byte, bytes) for each.
template <typename Visit> void for_each_shared_array(std::size_t dynamic_bytes, Visit visit) {
    for (std::size_t i = 0; i < shared_table.count; ++i) {
        const SharedArray& array = shared_table.arrays[i];
        visit(array, shared_base() + array.offset, array.dynamic ? dynamic_bytes : array.bytes);
    }
}

}  // namespace cuda_host
