// Largest magnitudes and quantisation, as plain loops that the compiler turns into vectors: every
// instruction set computes the same bits. Without fused multiply-add, which CMakeLists.txt forbids.

// Calls function(first, last, row_factor) for every row, or piece of one, of the elements [begin, end).
// A piece does not cross a multiple of 2^31, so that its length and its indices but for their high word, which is one
// number, are 32-bit arithmetic.
template <class Function>
void by_rows(const Floats &x, int64_t begin, int64_t end, Function function) {
    while (begin < end) {
        const int64_t row = begin / x.columns;
        int64_t last = (row + 1) * x.columns;
        if (last > end) last = end;
        const int64_t boundary = ((begin >> 31) + 1) << 31;
        if (last > boundary) last = boundary;
        function(begin, last, x.row_scale ? x.row_scale[row] : 1.0f);
        begin = last;
    }
}

struct Everywhere {
    bool operator()(int64_t) const { return true; }
};

template <class Element>
struct WherePositive {
    const Element *mask;
    bool operator()(int64_t i) const { return mask[i] > 0; }
};

template <class Mask>
uint32_t absmax_where(const Floats &x, int64_t begin, int64_t end, Mask counts) {
    int32_t largest = 0;
    by_rows(x, begin, end, [&](int64_t first, int64_t last, float factor) {
        const float *data = x.data;
        for (int64_t i = first; i < last; ++i) {
            const float scaled = data[i] * factor;
            const int32_t key = magnitude_key(counts(i) ? scaled : 0.0f);
            largest = key > largest ? key : largest;
        }
    });
    return largest;
}

inline uint32_t absmax(Floats x, int64_t begin, int64_t end) {
    if (x.positive_floats) return absmax_where(x, begin, end, WherePositive<float>{x.positive_floats});
    if (x.positive_bytes) return absmax_where(x, begin, end, WherePositive<int8_t>{x.positive_bytes});
    return absmax_where(x, begin, end, Everywhere());
}

// The 24 highest bits of the hash of an index, given by its words, as a number in [0, 1).
// tenfold.kernels._quantize says what the hash is.
inline float uniform(uint32_t low, uint32_t key, uint32_t second_key) {
    uint32_t z = low ^ key;
    z = (z ^ z >> 16) * 0x7feb352du;
    z ^= second_key;
    z = (z ^ z >> 15) * 0x846ca68bu;
    z ^= z >> 16;
    return float(int32_t(z >> 8)) * 0x1p-24f;
}

// Adding and subtracting this rounds a float below 2^22 in magnitude to the nearest integer, halves to even.
constexpr float round_to_nearest = 0x1.8p23f;

template <class Mask>
void quantize_where(const Floats &x, const Rounding &rounding, int64_t begin, int64_t end, Mask counts,
                    int8_t *quantized) {
    const float most = float(rounding.levels);
    by_rows(x, begin, end, [&](int64_t first, int64_t last, float row_scale) {
        const float *data = x.data;
        const float factor = row_scale * rounding.factor;
        const auto scaled = [&](int64_t i) {
            float v = data[i] * factor;
            v = counts(i) ? v : 0.0f;
            v = v == v ? v : 0.0f;
            v = v > most ? most : v;
            return v < -most ? -most : v;
        };
        if (!rounding.at_random) {
            for (int64_t i = first; i < last; ++i)
                quantized[i] = int8_t(int32_t(scaled(i) + round_to_nearest - round_to_nearest));
            return;
        }
        const uint32_t low = uint32_t(first), key = rounding.keys[0];
        const uint32_t second_key = rounding.keys[1] + uint32_t(first >> 32) * 0x9e3779b9u;
        const uint32_t size = uint32_t(last - first);
        for (uint32_t j = 0; j < size; ++j) {
            const float v = scaled(first + j);
            int32_t below = int32_t(v);
            below -= v < float(below);
            quantized[first + j] = int8_t(below + (uniform(low + j, key, second_key) < v - float(below)));
        }
    });
}

inline void quantize(Floats x, Rounding rounding, int64_t begin, int64_t end, int8_t *quantized) {
    if (x.positive_floats)
        quantize_where(x, rounding, begin, end, WherePositive<float>{x.positive_floats}, quantized);
    else if (x.positive_bytes)
        quantize_where(x, rounding, begin, end, WherePositive<int8_t>{x.positive_bytes}, quantized);
    else
        quantize_where(x, rounding, begin, end, Everywhere(), quantized);
}
