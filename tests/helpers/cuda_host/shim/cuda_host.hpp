// All that a .cu file finds without including it: put before its first line by -include.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>

#include "entry.hpp"
#include "language.hpp"
#include "mathematics.hpp"
#include "memory.hpp"
#include "storage.hpp"
#include "synchronization.hpp"
#include "thread.hpp"

// CUDA C++ takes alignas between the words of a declaration, where C++ does not; the attribute may stand there.
#define alignas(bytes) __attribute__((aligned(bytes)))
