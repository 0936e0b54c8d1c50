// Four floats, as AVX2 and AVX-512 both use them. Loads and inserts: on AMD the gather instruction
// is slower than these, on Intel about even.

inline __m128 load_quad(const float *x, uint64_t i, uint64_t j, uint64_t k, uint64_t l) {
    const __m128 low = _mm_insert_ps(_mm_load_ss(x + i), _mm_load_ss(x + j), 0x10);
    return _mm_insert_ps(_mm_insert_ps(low, _mm_load_ss(x + k), 0x20), _mm_load_ss(x + l), 0x30);
}

inline __m128 gather_quad(const float *x, const int64_t *at) { return load_quad(x, at[0], at[1], at[2], at[3]); }

// Loads are what limits a gather: two indices, which are not negative, share one.
inline __m128 gather_quad(const float *x, const int32_t *at) {
    uint64_t low, high;
    __builtin_memcpy(&low, at, sizeof low);
    __builtin_memcpy(&high, at + 2, sizeof high);
    return load_quad(x, uint32_t(low), low >> 32, uint32_t(high), high >> 32);
}

inline float sum_quad(__m128 x) {
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

inline void transpose_quad(const float *from, int64_t from_stride, float *to, int64_t to_stride) {
    __m128 row0 = _mm_loadu_ps(from);
    __m128 row1 = _mm_loadu_ps(from + from_stride);
    __m128 row2 = _mm_loadu_ps(from + 2 * from_stride);
    __m128 row3 = _mm_loadu_ps(from + 3 * from_stride);
    _MM_TRANSPOSE4_PS(row0, row1, row2, row3);
    _mm_storeu_ps(to, row0);
    _mm_storeu_ps(to + to_stride, row1);
    _mm_storeu_ps(to + 2 * to_stride, row2);
    _mm_storeu_ps(to + 3 * to_stride, row3);
}
