// Four floats, as AVX2 and AVX-512 both use them. Loads and inserts: on AMD the gather instruction
// is slower than these, on Intel about even.

template <class Index>
inline __m128 gather_quad(const float *x, const Index *at) {
    __m128 quad = _mm_load_ss(x + at[0]);
    quad = _mm_insert_ps(quad, _mm_load_ss(x + at[1]), 0x10);
    quad = _mm_insert_ps(quad, _mm_load_ss(x + at[2]), 0x20);
    return _mm_insert_ps(quad, _mm_load_ss(x + at[3]), 0x30);
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
