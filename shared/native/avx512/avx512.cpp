// AVX-512 (F, BW, DQ, VL).
#include <immintrin.h>

#include "../types.hpp"

namespace tenfold {
namespace {

#include "simd.hpp"

using Simd = Avx512;

bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

#include "../generic/instruction_set.hpp"

}  // namespace

extern const InstructionSet avx512 = instruction_set("avx512", supported);

}  // namespace tenfold
