#include "fiber.hpp"

#include <sys/mman.h>

#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUDA_HOST_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define CUDA_HOST_ASAN 1
#endif
#if defined(CUDA_HOST_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(CUDA_HOST_UCONTEXT)
extern "C" void cuda_host_switch(void** save, void* to);

// What a call must preserve goes onto the stack that is left and comes from the one that is entered. ucontext would
// enter the kernel twice a switch, for the signal mask.
asm(R"(
.text
.globl cuda_host_switch
.hidden cuda_host_switch
.type cuda_host_switch, @function
cuda_host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuda_host_switch, .-cuda_host_switch
)");
#endif

namespace cuda_host {
namespace {

constexpr std::uint64_t mark_of_the_end = 0x5afe57ac5afe57ac;

std::mutex mutex;
std::vector<Stack> unused;  // kept: fresh memory costs a page fault a page

}  // namespace

void Stack::mark() const { std::memcpy(low, &mark_of_the_end, sizeof(mark_of_the_end)); }

bool Stack::overrun() const { return std::memcmp(low, &mark_of_the_end, sizeof(mark_of_the_end)) != 0; }

Stack take_stack() {
    std::lock_guard<std::mutex> lock(mutex);
    if (unused.empty()) {
        constexpr std::size_t count = 64;
        void* memory = mmap(nullptr, count * Stack::bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        for (std::size_t i = 0; i < count; ++i) {
            unused.push_back({static_cast<unsigned char*>(memory) + i * Stack::bytes});
        }
    }
    const Stack stack = unused.back();
    unused.pop_back();
    stack.mark();
    return stack;
}

void give_back_stack(Stack stack) {
    std::lock_guard<std::mutex> lock(mutex);
    unused.push_back(stack);
}

void prepare(Context& context, const Stack& stack, unsigned char* top, void (*entry)()) {
    context.stack = stack.low;
    context.stack_bytes = Stack::bytes;
#if defined(CUDA_HOST_UCONTEXT)
    getcontext(&context.registers);
    context.registers.uc_stack.ss_sp = stack.low;
    context.registers.uc_stack.ss_size = std::size_t(top - stack.low);
    context.registers.uc_link = nullptr;
    makecontext(&context.registers, entry, 0);
#else
    void** p = reinterpret_cast<void**>(std::uintptr_t(top) & ~std::uintptr_t(15));
    *--p = nullptr;  // where entry would return to; and a call leaves the stack 8 bytes off a multiple of 16
    *--p = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--p = nullptr;
    context.stack_pointer = p;
#endif
}

void switch_context(Context& from, Context& to) {
#if defined(CUDA_HOST_ASAN)
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#endif
#if defined(CUDA_HOST_UCONTEXT)
    swapcontext(&from.registers, &to.registers);
#else
    cuda_host_switch(&from.stack_pointer, to.stack_pointer);
#endif
#if defined(CUDA_HOST_ASAN)
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void arrive_first([[maybe_unused]] Context& from) {
#if defined(CUDA_HOST_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, &from.stack, &from.stack_bytes);
#endif
}

}  // namespace cuda_host
