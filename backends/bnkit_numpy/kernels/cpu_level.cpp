#include "cpu_level.hpp"

#if defined(_M_X64)
#include <intrin.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#endif

namespace bnkit {

#if defined(_M_X64) || defined(__x86_64__)

// The levels of the x86-64 psABI, identified by their main features: the builtins of older compilers do not know the
// names of the levels and minor features (lzcnt, movbe).
const char* x86_level(bool v2, bool v3, bool v4) {
    if (v2 && v3 && v4) return "x86-64-v4";
    if (v2 && v3) return "x86-64-v3";
    return v2 ? "x86-64-v2" : "x86-64";
}

#endif

#if defined(_M_X64)

constexpr bool all_bits(unsigned long long word, unsigned long long mask) { return (word & mask) == mask; }

template <typename... Index>
constexpr unsigned bits(Index... index) { return (0u | ... | (1u << index)); }

const char* cpu_level() {
    int max_leaf[4], leaf1[4], leaf7[4] = {0, 0, 0, 0};
    __cpuid(max_leaf, 0);
    __cpuid(leaf1, 1);
    if (max_leaf[0] >= 7) __cpuidex(leaf7, 7, 0);
    const unsigned ecx = static_cast<unsigned>(leaf1[2]), ebx = static_cast<unsigned>(leaf7[1]);
    // The operating system must also save the AVX registers (osxsave, then xcr0).
    const unsigned long long saved = all_bits(ecx, bits(27)) ? _xgetbv(0) : 0;
    return x86_level(
        all_bits(ecx, bits(0, 9, 19, 20, 23)),  // sse3, ssse3, sse4.1, sse4.2, popcnt
        // fma, avx, f16c; bmi, avx2, bmi2
        all_bits(saved, 0x06) && all_bits(ecx, bits(12, 28, 29)) && all_bits(ebx, bits(3, 5, 8)),
        all_bits(saved, 0xe6) && all_bits(ebx, bits(16, 17, 28, 30, 31)));  // avx512 f, dq, cd, bw, vl
}

#elif defined(__x86_64__)

// By cpuid: only recent versions of clang's builtin know f16c.
bool has_f16c() {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx >> 29 & 1) != 0;
}

const char* cpu_level() {
    __builtin_cpu_init();
    return x86_level(
        __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"),
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
            __builtin_cpu_supports("bmi2") && has_f16c(),
        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"));
}

#elif defined(__aarch64__) || defined(_M_ARM64)

const char* cpu_level() { return "neon"; }  // part of every ARMv8-A

#else

const char* cpu_level() { return "generic"; }

#endif

}  // namespace bnkit
