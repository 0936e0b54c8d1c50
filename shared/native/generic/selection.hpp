// Selection by magnitude: digits of the key of |x|.

inline bool count_digits(const float *x, int64_t begin, int64_t end, uint32_t prefix, int prefix_shift, int shift,
                         uint32_t mask, int64_t *counts) {
    uint32_t largest = 0;
    for (int64_t i = begin; i < end; ++i) {
        const uint32_t key = magnitude_key(x[i]);
        largest = key > largest ? key : largest;
        // The cast keeps a shift by 32, "every key", defined.
        if (uint64_t(key) >> prefix_shift == prefix) ++counts[(key >> shift) & mask];
    }
    return largest > 0x7f800000u;
}

inline int64_t count_equal(const float *x, int64_t begin, int64_t end, uint32_t key) {
    int64_t count = 0;
    for (int64_t i = begin; i < end; ++i) count += magnitude_key(x[i]) == key;
    return count;
}

inline void keep_above(const float *x, int64_t begin, int64_t end, uint32_t threshold, int64_t ties, bool *keep) {
    for (int64_t i = begin; i < end; ++i) keep[i] = magnitude_key(x[i]) > threshold;
    for (int64_t i = begin; i < end && ties > 0; ++i)
        if (magnitude_key(x[i]) == threshold) {
            keep[i] = true;
            --ties;
        }
}

// Sums of squares in double: no overflow, and the same rounded norm from every instruction set
// in all but the rarest cases.
inline void group_norms(const float *x, int64_t columns, int64_t begin, int64_t end, float *norms) {
    constexpr int lanes = 8;
    for (int64_t i = begin; i < end; ++i) {
        const float *row = x + i * columns;
        double sums[lanes] = {};
        int64_t j = 0;
        for (; j + lanes <= columns; j += lanes)
            for (int lane = 0; lane < lanes; ++lane) sums[lane] += double(row[j + lane]) * double(row[j + lane]);
        for (; j < columns; ++j) sums[0] += double(row[j]) * double(row[j]);
        double total = 0.0;
        for (int lane = 0; lane < lanes; ++lane) total += sums[lane];
        norms[i] = float(__builtin_sqrt(total));
    }
}
