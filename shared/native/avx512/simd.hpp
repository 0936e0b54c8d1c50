// Sixteen floats at a time, and pairs of 16-bit products: what every instruction set with AVX-512 has.

#include "../avx2/quad.hpp"
#include "integers.hpp"

struct Avx512 : Integers {
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
    static void stream(float *p, Float x) { _mm512_stream_ps(p, x); }
    static void end_stream() { _mm_sfence(); }
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

    using Operand = int16_t;
    static constexpr int group = 2;
    static constexpr int offset = 0;
    static constexpr int tile_rows = 6;
    static constexpr int tile_vectors = 4;
    static constexpr int step_unit = 1;
    static constexpr int block_terms = 512;
    static constexpr bool has_tiles = false;
    struct TileSettings {};

    static Int int_zero() { return _mm512_setzero_si512(); }
    static Int load_operands(const void *p) { return _mm512_loadu_si512(p); }
    static Int broadcast_group(const void *p) {
        int32_t group;
        __builtin_memcpy(&group, p, sizeof group);
        return _mm512_set1_epi32(group);
    }
    static Int dot(Int sums, Int columns, Int row) { return _mm512_add_epi32(sums, _mm512_madd_epi16(columns, row)); }
    static void store_int(int32_t *p, Int x) { _mm512_storeu_si512(p, x); }
};
