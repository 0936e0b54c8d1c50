// Sixteen 32-bit or thirty-two 16-bit integers at a time.

struct Integers {
    using Short = __m512i;
    using Int = __m512i;

    static Short zero_shorts() { return _mm512_setzero_si512(); }
    static Short broadcast_pair(int8_t even, int8_t odd) {
        return _mm512_set1_epi32(int(uint32_t(uint16_t(odd)) << 16 | uint16_t(even)));
    }
    static Short widen(const int8_t *p) {
        return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
    }
    static Short interleave(const int8_t *even, const int8_t *odd) {
        const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i *>(even));
        const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i *>(odd));
        return _mm512_cvtepi8_epi16(_mm256_set_m128i(_mm_unpackhi_epi8(a, b), _mm_unpacklo_epi8(a, b)));
    }
    static Short first_of(Short x, int count) { return _mm512_maskz_mov_epi16((1u << count) - 1, x); }
    static Short add(Short a, Short b) { return _mm512_add_epi16(a, b); }
    static Int dot_pairs(Short a, Short b, Int sum) {
#if defined(__AVX512VNNI__)
        return _mm512_dpwssd_epi32(sum, a, b);
#else
        return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#endif
    }
    static void sum_each(const Int (&x)[4], int32_t (&sums)[4]) {
        const __m512i low = add_neighbours(x[0], x[1]), high = add_neighbours(x[2], x[3]);
        const __m512i all =
            _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
        const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
        const __m128i quad = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(sums), quad);
    }
    static __m512 to_float(Int x) { return _mm512_cvtepi32_ps(x); }
    static __m512 load(const int8_t *p) {
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))));
    }
    static void store(int16_t *p, Short x) { _mm512_storeu_si512(p, x); }
    static void store_floats(float *p, Short x) {
        _mm512_storeu_ps(p, to_float(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(x))));
        _mm512_storeu_ps(p + 16, to_float(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(x, 1))));
    }
    static float floor(float x) { return __builtin_floorf(x); }
    static uint8_t positive_bits(const float *p) {
        return _mm256_cmp_ps_mask(_mm256_loadu_ps(p), _mm256_setzero_ps(), _CMP_GT_OQ);
    }
    static void spread_bits(uint64_t bits, int8_t *bytes) { _mm512_storeu_si512(bytes, _mm512_movm_epi8(bits)); }

private:
    static __m512i add_neighbours(__m512i a, __m512i b) {
        return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    }
};
