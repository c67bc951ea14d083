// How Python calls a kernel: its signature as text, and a function that takes the addresses of its arguments.
#pragma once

#include <string>
#include <type_traits>
#include <utility>

#include "storage.hpp"

namespace cuda_host {

// NumPy's name of a type: "f4"; "bf" is bfloat16, "*f4" a pointer, "*" one to anything, "V16" a struct of 16 bytes.
template <typename T> std::string type_name() {
    using U = std::remove_cv_t<T>;
    if constexpr (std::is_pointer_v<U>) {
        return "*" + type_name<std::remove_pointer_t<U>>();
    } else if constexpr (std::is_void_v<U>) {
        return "";
    } else {
        const char* kind = "V";
        if constexpr (std::is_same_v<U, __nv_bfloat16>) return "bf";
        if constexpr (std::is_floating_point_v<U> || std::is_same_v<U, __half>) kind = "f";
        if constexpr (std::is_integral_v<U>) kind = std::is_signed_v<U> ? "i" : "u";
        if constexpr (std::is_same_v<U, bool>) kind = "b";
        return kind + std::to_string(sizeof(U));
    }
}

template <typename... A> std::string signature(void (*)(A...)) {
    std::string names;
    ((names += type_name<A>() + " "), ...);
    return names;
}

// Not instrumented in a checked module: the addresses are not the kernel's.
template <typename... A, std::size_t... I>
__attribute__((no_sanitize("thread"))) void call(void (*kernel)(A...), [[maybe_unused]] void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
}

template <typename... A> __attribute__((no_sanitize("thread"))) void call(void (*kernel)(A...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<A...>());
}

}  // namespace cuda_host

#define CUDA_HOST_ENTRY(number, ...)                                                                             \
    extern "C" __attribute__((visibility("default"))) const char* cuda_host_signature_##number() {              \
        static const std::string names = cuda_host::signature(__VA_ARGS__);                                      \
        return names.c_str();                                                                                    \
    }                                                                                                            \
    extern "C" __attribute__((visibility("default"))) void cuda_host_call_##number(void** arguments) {          \
        cuda_host::call(__VA_ARGS__, arguments);                                                                 \
    }
