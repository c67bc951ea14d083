// How Python calls a kernel: its signature as text, and a function that takes the addresses of its arguments.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include "storage.hpp"

namespace cuda_host {

// Text without std::string: of a template that a kernel's file and the runtime both use, the linker keeps one, and that
// of a checked module calls the runtime.
struct Signature {
    char text[1024] = "";
    std::size_t length = 0;

    void add(const char* more) {
        while (*more != 0 && length + 1 < sizeof(text)) text[length++] = *more++;
    }
};

// NumPy's name of a type: "f4"; "bf" is bfloat16, "*f4" a pointer, "*" one to anything, "V16" a struct of 16 bytes.
template <typename T> void add_type(Signature& names) {
    using U = std::remove_cv_t<T>;
    if constexpr (std::is_pointer_v<U>) {
        names.add("*");
        add_type<std::remove_pointer_t<U>>(names);
    } else if constexpr (std::is_same_v<U, __nv_bfloat16>) {
        names.add("bf");
    } else if constexpr (!std::is_void_v<U>) {
        constexpr bool real = std::is_floating_point_v<U> || std::is_same_v<U, __half>;
        constexpr bool whole = std::is_integral_v<U>, truth = std::is_same_v<U, bool>;
        names.add(truth ? "b" : real ? "f" : !whole ? "V" : std::is_signed_v<U> ? "i" : "u");
        char digits[] = {char('0' + sizeof(U) / 1000 % 10), char('0' + sizeof(U) / 100 % 10),
                         char('0' + sizeof(U) / 10 % 10), char('0' + sizeof(U) % 10), 0};
        const char* first = digits;
        while (*first == '0') ++first;
        names.add(first);
    }
}

template <typename... A> Signature signature(void (*)(A...)) {
    Signature names;
    ((add_type<A>(names), names.add(" ")), ...);
    return names;
}

// Not instrumented in a checked module: the addresses are not the kernel's.
template <typename... A, std::size_t... I>
__attribute__((no_sanitize("thread"))) void call(void (*kernel)(A...), [[maybe_unused]] void** arguments,
                                                 std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
}

template <typename... A> __attribute__((no_sanitize("thread"))) void call(void (*kernel)(A...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<A...>());
}

}  // namespace cuda_host

#define CUDA_HOST_ENTRY(number, ...)                                                                             \
    extern "C" __attribute__((visibility("default"))) const char* cuda_host_signature_##number() {              \
        static const cuda_host::Signature names = cuda_host::signature(__VA_ARGS__);                             \
        return names.text;                                                                                       \
    }                                                                                                            \
    extern "C" __attribute__((visibility("default"))) void cuda_host_call_##number(void** arguments) {          \
        cuda_host::call(__VA_ARGS__, arguments);                                                                 \
    }
