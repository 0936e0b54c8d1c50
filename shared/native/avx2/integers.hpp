// Eight 32-bit or sixteen 16-bit integers at a time.

struct Integers {
    using Short = __m256i;
    using Int = __m256i;

    static Short zero_shorts() { return _mm256_setzero_si256(); }
    static Short broadcast_pair(int8_t even, int8_t odd) {
        return _mm256_set1_epi32(int(uint32_t(uint16_t(odd)) << 16 | uint16_t(even)));
    }
    static Short widen(const int8_t *p) {
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
    }
    static Short interleave(const int8_t *even, const int8_t *odd) {
        const __m128i a = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(even));
        const __m128i b = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(odd));
        return _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b));
    }
    static Short first_of(Short x, int count) {
        const __m256i place = _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        return _mm256_and_si256(x, _mm256_cmpgt_epi16(_mm256_set1_epi16(int16_t(count)), place));
    }
    static Short add(Short a, Short b) { return _mm256_add_epi16(a, b); }
    static Int dot_pairs(Short a, Short b, Int sum) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
    static void sum_each(const Int (&x)[4], int32_t (&sums)[4]) {
        const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(x[0], x[1]), _mm256_hadd_epi32(x[2], x[3]));
        const __m128i quad = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(sums), quad);
    }
    static __m256 to_float(Int x) { return _mm256_cvtepi32_ps(x); }
    static __m256 load(const int8_t *p) {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))));
    }
    static void store(int16_t *p, Short x) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), x); }
    static void store_floats(float *p, Short x) {
        _mm256_storeu_ps(p, to_float(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(x))));
        _mm256_storeu_ps(p + 8, to_float(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(x, 1))));
    }
    static float floor(float x) { return __builtin_floorf(x); }
    static uint8_t positive_bits(const float *p) {
        return uint8_t(_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(p), _mm256_setzero_ps(), _CMP_GT_OQ)));
    }
    static void spread_bits(uint64_t bits, int8_t *bytes) {
        const __m256i byte_of_lane = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
        const __m256i bit_of_lane = _mm256_set1_epi64x(int64_t(0x8040201008040201));
        for (int half = 0; half < 2; ++half) {
            const __m256i all = _mm256_set1_epi32(int32_t(bits >> 32 * half));
            const __m256i one = _mm256_and_si256(_mm256_shuffle_epi8(all, byte_of_lane), bit_of_lane);
            _mm256_storeu_si256(reinterpret_cast<__m256i *>(bytes + 32 * half), _mm256_cmpeq_epi8(one, bit_of_lane));
        }
    }
};
