// What the compiler calls for -fsanitize=thread, answered here: ThreadSanitizer's own library knows threads and locks,
// and neither blocks, nor warps, nor the fences that CUDA needs, nor which memory a kernel was given.
#include <link.h>

#include <cstddef>
#include <cstdint>

#include "block.hpp"
#include "checker.hpp"
#include "module_image.hpp"

namespace {

using cuda_host::Checker;

// Null outside a kernel: the module's own start is instrumented too.
Checker* checker() {
    return cuda_host::a_fiber_runs() ? cuda_host::running_fiber().block->grid.checker.get() : nullptr;
}

void load(const void* p, std::size_t bytes, const void* code) {
    if (Checker* c = checker()) c->load(p, bytes, code);
}

void store(const void* p, std::size_t bytes, const void* code) {
    if (Checker* c = checker()) c->store(p, bytes, code);
}

void atomic(const volatile void* p, std::size_t bytes, const void* code) {
    if (Checker* c = checker()) c->atomic(const_cast<const void*>(p), bytes, code);
}

// An atomic that asks for an order has fences about it, as cuda::atomic has.
void fence(int order) {
    if (order != __ATOMIC_RELAXED && checker() != nullptr) checker()->fence(cuda_host::running_fiber());
}

}  // namespace

namespace cuda_host {

bool module_image_holds(const void* p) {
    struct Search {
        std::uintptr_t self, address;
        bool found;
    } search{std::uintptr_t(&module_image_holds), std::uintptr_t(p), false};
    dl_iterate_phdr(
        [](dl_phdr_info* module, std::size_t, void* data) {
            auto& search = *static_cast<Search*>(data);
            bool own = false, holds = false;
            for (int i = 0; i < module->dlpi_phnum; ++i) {
                const auto& part = module->dlpi_phdr[i];
                if (part.p_type != PT_LOAD) continue;
                const std::uintptr_t first = module->dlpi_addr + part.p_vaddr;
                own = own || search.self - first < part.p_memsz;
                holds = holds || search.address - first < part.p_memsz;
            }
            if (own) search.found = holds;
            return int(own);
        },
        &search);
    return search.found;
}

}  // namespace cuda_host

#define HERE __builtin_return_address(0)

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_atomic_thread_fence(int) {}  // __threadfence() tells the checker itself, with its scope
void __tsan_atomic_signal_fence(int) {}

#define ACCESSES(bytes)                                                                          \
    void __tsan_read##bytes(void* p) { load(p, bytes, HERE); }                        \
    void __tsan_write##bytes(void* p) { store(p, bytes, HERE); }                      \
    void __tsan_unaligned_read##bytes(void* p) { load(p, bytes, HERE); }              \
    void __tsan_unaligned_write##bytes(void* p) { store(p, bytes, HERE); }            \
    void __tsan_volatile_read##bytes(void* p) { atomic(p, bytes, HERE); }             \
    void __tsan_volatile_write##bytes(void* p) { atomic(p, bytes, HERE); }            \
    void __tsan_read_write##bytes(void* p) {                                                     \
        load(p, bytes, HERE);                                                         \
        store(p, bytes, HERE);                                                        \
    }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

void __tsan_read_range(void* p, std::size_t bytes) { load(p, bytes, HERE); }
void __tsan_write_range(void* p, std::size_t bytes) { store(p, bytes, HERE); }

void* __tsan_memcpy(void* to, const void* from, std::size_t bytes) {
    load(from, bytes, HERE);
    store(to, bytes, HERE);
    return __builtin_memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, std::size_t bytes) {
    load(from, bytes, HERE);
    store(to, bytes, HERE);
    return __builtin_memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, std::size_t bytes) {
    store(to, bytes, HERE);
    return __builtin_memset(to, value, bytes);
}

#define ATOMIC(operation)            \
    fence(order);                    \
    atomic(p, sizeof(*p), HERE);     \
    const auto result = (operation); \
    fence(order);                    \
    return result;
#define CALL(bits, name) __tsan_atomic##bits##_##name
#define SEQUENTIAL __ATOMIC_SEQ_CST

#define ATOMICS(bits, T)                                                                              \
    T CALL(bits, load)(const volatile T* p, int order) { ATOMIC(__atomic_load_n(p, SEQUENTIAL)) }     \
    void CALL(bits, store)(volatile T * p, T value, int order) {                                      \
        fence(order);                                                                                 \
        atomic(p, sizeof(T), HERE);                                                                   \
        __atomic_store_n(p, value, SEQUENTIAL);                                                       \
    }                                                                                                 \
    T CALL(bits, exchange)(volatile T * p, T value, int order) {                                      \
        ATOMIC(__atomic_exchange_n(p, value, SEQUENTIAL))                                             \
    }                                                                                                 \
    T CALL(bits, fetch_add)(volatile T * p, T value, int order) {                                     \
        ATOMIC(__atomic_fetch_add(p, value, SEQUENTIAL))                                              \
    }                                                                                                 \
    T CALL(bits, fetch_sub)(volatile T * p, T value, int order) {                                     \
        ATOMIC(__atomic_fetch_sub(p, value, SEQUENTIAL))                                              \
    }                                                                                                 \
    int CALL(bits, compare_exchange_strong)(volatile T * p, T * old, T value, int order, int) {       \
        ATOMIC(__atomic_compare_exchange_n(p, old, value, false, SEQUENTIAL, SEQUENTIAL))             \
    }                                                                                                 \
    int CALL(bits, compare_exchange_weak)(volatile T * p, T * old, T value, int order, int) {         \
        ATOMIC(__atomic_compare_exchange_n(p, old, value, false, SEQUENTIAL, SEQUENTIAL))             \
    }
ATOMICS(8, std::uint8_t)
ATOMICS(16, std::uint16_t)
ATOMICS(32, std::uint32_t)
ATOMICS(64, std::uint64_t)

}  // extern "C"
