// AVX2 with FMA: eight floats at a time.
#include <immintrin.h>

#include "../types.hpp"

namespace tenfold {
namespace {

#include "quad.hpp"
#include "integers.hpp"

struct Simd : Integers {
    using Float = __m256;
    static constexpr int width = 8;
    static constexpr int registers = 16;

    using Integers::add;
    using Integers::load;
    using Integers::store;

    static Float zero() { return _mm256_setzero_ps(); }
    static Float broadcast(float x) { return _mm256_set1_ps(x); }
    static Float load(const float *p) { return _mm256_loadu_ps(p); }
    static void store(float *p, Float x) { _mm256_storeu_ps(p, x); }
    static void stream(float *p, Float x) { _mm256_stream_ps(p, x); }
    static void end_stream() { _mm_sfence(); }
    static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
    static Float multiply_add(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
    static float sum(Float x) { return sum_quad(_mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1))); }
    template <class Index>
    static Float gather(const float *x, const Index *at) {
        return _mm256_insertf128_ps(_mm256_castps128_ps256(gather_quad(x, at)), gather_quad(x, at + 4), 1);
    }
    static void transpose(const float *from, int64_t from_stride, float *to, int64_t to_stride) {
        for (int i = 0; i < width; i += 4)
            for (int j = 0; j < width; j += 4)
                transpose_quad(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
    }

    using Operand = int16_t;
    static constexpr int group = 2;
    static constexpr int offset = 0;
    static constexpr int tile_rows = 6;
    static constexpr int tile_vectors = 2;
    static constexpr int step_unit = 1;
    static constexpr int block_terms = 512;
    static constexpr bool has_tiles = false;
    struct TileSettings {};

    static Int int_zero() { return _mm256_setzero_si256(); }
    static Int load_operands(const void *p) { return _mm256_loadu_si256(static_cast<const __m256i *>(p)); }
    static Int broadcast_group(const void *p) {
        int32_t group;
        __builtin_memcpy(&group, p, sizeof group);
        return _mm256_set1_epi32(group);
    }
    static Int dot(Int sums, Int columns, Int row) { return _mm256_add_epi32(sums, _mm256_madd_epi16(columns, row)); }
    static void store_int(int32_t *p, Int x) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), x); }
};

bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

#include "../generic/instruction_set.hpp"

}  // namespace

extern const InstructionSet avx2 = instruction_set("avx2", supported);

}  // namespace tenfold
