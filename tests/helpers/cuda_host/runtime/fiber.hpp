// Fibers: functions that run on stacks of their own and are left and entered by hand.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__) || defined(CUDA_HOST_UCONTEXT)
#define CUDA_HOST_UCONTEXT 1
#include <ucontext.h>
#endif

namespace cuda_host {

// Where a fiber, or the thread that runs the fibers, was left.
struct Context {
#if defined(CUDA_HOST_UCONTEXT)
    ucontext_t registers;
#else
    void* stack_pointer = nullptr;
#endif
    const void* stack = nullptr;  // its lowest byte and size, for AddressSanitizer; null until it is known
    std::size_t stack_bytes = 0;
    void* fake_stack = nullptr;
};

// A stack without a page that catches what runs over it: a grid has too many stacks for the system to count pages so.
struct Stack {
    static constexpr std::size_t bytes = 128 * 1024;

    unsigned char* low = nullptr;

    bool holds(const void* p) const { return std::uintptr_t(p) - std::uintptr_t(low) < bytes; }
    void mark() const;
    bool overrun() const;
};

Stack take_stack();
void give_back_stack(Stack stack);

// `entry` begins when the context is switched to, on a stack that ends at `top`; it must never return.
void prepare(Context& context, const Stack& stack, unsigned char* top, void (*entry)());

// Leaves `from`, and goes on where `to` was left.
void switch_context(Context& from, Context& to);

// What a fiber does first: it was switched to from `from`.
void arrive_first(Context& from);

}  // namespace cuda_host
