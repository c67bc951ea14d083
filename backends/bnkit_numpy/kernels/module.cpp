#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdlib>
#include <cstring>

#include "batch_norm.hpp"
#include "threads.hpp"

#if defined(_M_X64)
#include <intrin.h>
#endif

namespace nb = nanobind;

namespace {

const char* version() { return BNKIT_VERSION; }

#if defined(_M_X64) || defined(__x86_64__)

// The levels are those of the x86-64 psABI, told by the features that set them apart: compilers of several years differ
// in which level names and which minor features (lzcnt, movbe) their builtins know.
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
    // The processor having AVX is not enough: the system must save its registers (osxsave, then xcr0).
    const unsigned long long saved = all_bits(ecx, bits(27)) ? _xgetbv(0) : 0;
    return x86_level(
        all_bits(ecx, bits(0, 9, 19, 20, 23)),  // sse3, ssse3, sse4.1, sse4.2, popcnt
        all_bits(saved, 0x06) && all_bits(ecx, bits(12, 28, 29)) && all_bits(ebx, bits(3, 5, 8)),  // fma, avx, f16c; bmi, avx2, bmi2
        all_bits(saved, 0xe6) && all_bits(ebx, bits(16, 17, 28, 30, 31)));  // avx512 f, dq, cd, bw, vl
}

#elif defined(__x86_64__)

const char* cpu_level() {
    __builtin_cpu_init();
    return x86_level(
        __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"),
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
            __builtin_cpu_supports("bmi2"),
        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"));
}

#elif defined(__aarch64__) || defined(_M_ARM64)

const char* cpu_level() { return "neon"; }  // part of every ARMv8-A

#else

const char* cpu_level() { return "generic"; }

#endif

struct NamedLevel {
    const char* name;
    const bnkit::Level* level;
};

// Best first; a level runs on every machine of a better one.
const NamedLevel levels[] = {
#if defined(BNKIT_X86_LEVELS)
    {"x86-64-v4", &bnkit::v4::level},
    {"x86-64-v3", &bnkit::v3::level},
    {"x86-64-v2", &bnkit::v2::level},
#else
    {cpu_level(), &bnkit::generic::level},
#endif
};

// The best level that this machine and BNKIT_CPU_LEVEL allow; null where none does.
const NamedLevel* choose_level() {
    const char* wanted = std::getenv("BNKIT_CPU_LEVEL");
    bool here = false, allowed = wanted == nullptr || *wanted == '\0';
    for (const NamedLevel& level : levels) {
        here = here || std::strcmp(level.name, cpu_level()) == 0;
        allowed = allowed || std::strcmp(level.name, wanted) == 0;
        if (here && allowed) return &level;
    }
    return nullptr;
}

const NamedLevel* const chosen = choose_level();

const char* kernel_level() { return chosen ? chosen->name : nullptr; }

template <typename T> using View = nb::ndarray<T, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
template <typename T> using Channels = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename T> bnkit::Shape shape_of(const View<T>& x) {
    return {static_cast<bnkit::index>(x.shape(0)), static_cast<bnkit::index>(x.shape(1)),
            static_cast<bnkit::index>(x.shape(2)), static_cast<bnkit::index>(x.shape(3))};
}

template <typename T> T* pointer(const Channels<T>& a) { return a.is_valid() ? a.data() : nullptr; }

template <typename T>
void train(View<const T> x, Channels<const T> gamma, Channels<const T> beta, Channels<T> running_mean,
           Channels<T> running_var, View<T> y, Channels<double> mean, Channels<double> m2, Channels<double> rstd,
           double decay, double eps, int correction, bool relu) {
    const bnkit::Train<T> call{shape_of(x), x.data(), pointer(gamma), pointer(beta), pointer(running_mean),
                               pointer(running_var), y.data(), mean.data(), m2.data(), rstd.data(), decay, eps,
                               correction, relu};
    nb::gil_scoped_release released;
    chosen->level->of<T>().train(call);
}

template <typename T>
void inference(View<const T> x, Channels<const T> gamma, Channels<const T> beta, Channels<const T> mean,
               Channels<const T> var, View<T> y, double eps, bool relu) {
    const bnkit::Inference<T> call{shape_of(x), x.data(), pointer(gamma), pointer(beta), mean.data(), var.data(),
                                   y.data(), eps, relu};
    nb::gil_scoped_release released;
    chosen->level->of<T>().inference(call);
}

template <typename T>
void backward(View<const T> dy, View<const T> x, Channels<const T> gamma, Channels<const T> beta,
              Channels<const double> mean, Channels<const double> rstd, View<T> dx, Channels<T> dgamma,
              Channels<T> dbeta, bool train, bool relu) {
    const bnkit::Backward<T> call{shape_of(x), dy.data(), x.data(), pointer(gamma), pointer(beta), mean.data(),
                                  rstd.data(), dx.data(), dgamma.data(), dbeta.data(), train, relu};
    nb::gil_scoped_release released;
    chosen->level->of<T>().backward(call);
}

template <typename T> void define(nb::module_& m) {
    using nb::arg;
    m.def("train", &train<T>, arg("x").noconvert(), arg("gamma").noconvert().none(), arg("beta").noconvert().none(),
          arg("running_mean").noconvert().none(), arg("running_var").noconvert().none(), arg("y").noconvert(),
          arg("mean").noconvert(), arg("m2").noconvert(), arg("rstd").noconvert(), arg("decay"), arg("eps"),
          arg("correction"), arg("relu"));
    m.def("inference", &inference<T>, arg("x").noconvert(), arg("gamma").noconvert().none(),
          arg("beta").noconvert().none(), arg("mean").noconvert(), arg("var").noconvert(), arg("y").noconvert(),
          arg("eps"), arg("relu"));
    m.def("backward", &backward<T>, arg("dy").noconvert(), arg("x").noconvert(), arg("gamma").noconvert().none(),
          arg("beta").noconvert().none(), arg("mean").noconvert(), arg("rstd").noconvert(), arg("dx").noconvert(),
          arg("dgamma").noconvert(), arg("dbeta").noconvert(), arg("train"), arg("relu"));
}

}  // namespace

NB_MODULE(_kernels, m) {
    m.def("version", &version, "The version of bnkit this module was built from.");
    m.def("cpu_level", &cpu_level, "The SIMD level of this machine: an x86-64 level, \"neon\" or \"generic\".");
    m.def("kernel_level", &kernel_level, "The level of the kernels in use; None where none fits this machine.");
    m.def("set_threads", &bnkit::set_threads, nb::arg("count"));
    m.def("get_threads", &bnkit::get_threads);
    define<float>(m);
    define<double>(m);
}
