// AVX-512 with VNNI: one instruction sums four products of bytes.
#include <immintrin.h>

#include "../types.hpp"

namespace tenfold {
namespace {

#include "../avx512/simd.hpp"

// The instruction takes one unsigned operand: the columns are stored with 128 added.
struct Simd : Avx512 {
    using Operand = uint8_t;
    static constexpr int group = 4;
    static constexpr int offset = 128;

    static Int dot(Int sums, Int columns, Int row) { return _mm512_dpbusd_epi32(sums, columns, row); }
};

bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

#include "../generic/instruction_set.hpp"

}  // namespace

extern const InstructionSet avx512_vnni = instruction_set("avx512_vnni", supported);

}  // namespace tenfold
