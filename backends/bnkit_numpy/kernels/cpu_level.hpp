// The SIMD level of this machine.
#pragma once

namespace bnkit {

// "x86-64" or "x86-64-v2" to "x86-64-v4", "neon", or "generic".
const char* cpu_level();

}  // namespace bnkit
