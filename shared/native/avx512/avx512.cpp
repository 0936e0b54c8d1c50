// AVX-512 (F, BW, DQ, VL): sixteen floats at a time.
#include <immintrin.h>

#include "../types.hpp"

namespace tenfold {
namespace {

#include "../avx2/quad.hpp"
#include "integers.hpp"

struct Simd : Integers {
    using Float = __m512;
    static constexpr int width = 16;
    static constexpr int registers = 32;

    using Integers::add;
    using Integers::load;
    using Integers::store;

    static Float zero() { return _mm512_setzero_ps(); }
    static Float broadcast(float x) { return _mm512_set1_ps(x); }
    static Float load(const float *p) { return _mm512_loadu_ps(p); }
    static void store(float *p, Float x) { _mm512_storeu_ps(p, x); }
    static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
    static Float multiply_add(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
    static float sum(Float x) {
        const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
        return sum_quad(_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
    }
    template <class Index>
    static Float gather(const float *x, const Index *at) {
        const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(gather_quad(x, at)), gather_quad(x, at + 4), 1);
        const __m256 high =
            _mm256_insertf128_ps(_mm256_castps128_ps256(gather_quad(x, at + 8)), gather_quad(x, at + 12), 1);
        return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
    }
    static void transpose(const float *from, int64_t from_stride, float *to, int64_t to_stride) {
        for (int i = 0; i < width; i += 4)
            for (int j = 0; j < width; j += 4)
                transpose_quad(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
    }
};

bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

#include "../generic/instruction_set.hpp"

}  // namespace

extern const InstructionSet avx512 = instruction_set("avx512", supported);

}  // namespace tenfold
