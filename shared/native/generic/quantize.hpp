// Largest magnitudes, quantisation and masks, as plain loops that the compiler turns into vectors: every
// instruction set computes the same bits. Without fused multiply-add, which CMakeLists.txt forbids.

// So many elements at a time, while those a while ahead are fetched into the cache: a page ends where the
// processor would stop to fetch by itself.
constexpr int64_t elements_at_once = 512, elements_ahead = 1024;

// Calls function(first, last, row_factor) for every piece of a row of the elements [begin, end). A piece
// does not cross a multiple of 2^32, so that the high word of its indices is one number.
template <class Function>
void by_pieces(const Floats &x, int64_t begin, int64_t end, Function function) {
    int64_t row = begin < end ? begin / x.columns : 0;
    while (begin < end) {
        const int64_t row_end = (row + 1) * x.columns;
        int64_t last = begin + elements_at_once;
        if (last > row_end) last = row_end;
        if (last > end) last = end;
        const int64_t boundary = ((begin >> 32) + 1) << 32;
        if (last > boundary) last = boundary;
        for (int64_t i = begin; i < last; i += 16) __builtin_prefetch(x.data + i + elements_ahead);
        function(begin, last, x.row_scale ? x.row_scale[row] : 1.0f);
        begin = last;
        row += last == row_end;
    }
}

// A mask gives, for every piece, a function of an index: -1 where an element counts, 0 where it counts as zero.
// That makes a mask of integers, which takes less than a choice between floats.
struct Everywhere {
    static auto piece(int64_t, int64_t) {
        return [](int64_t) { return int8_t(-1); };
    }
};

template <class Element>
struct WherePositive {
    const Element *mask;
    auto piece(int64_t, int64_t) const {
        return [mask = mask](int64_t i) { return int8_t(-(mask[i] > 0)); };
    }
};

// The bits of a piece are made bytes first, 64 at a time.
struct WhereBitsAreSet {
    const uint8_t *bits;
    alignas(64) int8_t bytes[elements_at_once + 64] = {};

    auto piece(int64_t first, int64_t last) {
        const int64_t start = first & ~int64_t(7);
        for (int64_t i = start; i < last; i += 64) {
            uint64_t word = 0;
            if (last - i >= 64)
                __builtin_memcpy(&word, bits + (i >> 3), sizeof word);
            else
                __builtin_memcpy(&word, bits + (i >> 3), (last - i + 7) >> 3);
            Simd::spread_bits(word, bytes + (i - start));
        }
        return [this, start](int64_t i) { return bytes[i - start]; };
    }
};

template <class Mask>
uint32_t absmax_where(const Floats &x, int64_t begin, int64_t end, Mask mask) {
    int32_t largest = 0;
    by_pieces(x, begin, end, [&](int64_t first, int64_t last, float factor) {
        const float *data = x.data;
        const auto counts = mask.piece(first, last);
        for (int64_t i = first; i < last; ++i) {
            const int32_t key = magnitude_key(data[i] * factor) & counts(i);
            largest = key > largest ? key : largest;
        }
    });
    return largest;
}

inline uint32_t absmax(Floats x, int64_t begin, int64_t end) {
    if (x.positive_floats) return absmax_where(x, begin, end, WherePositive<float>{x.positive_floats});
    if (x.positive_bytes) return absmax_where(x, begin, end, WherePositive<int8_t>{x.positive_bytes});
    if (x.positive_bits) return absmax_where(x, begin, end, WhereBitsAreSet{x.positive_bits});
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
void quantize_where(const Floats &x, const Rounding &rounding, int64_t begin, int64_t end, Mask mask,
                    int8_t *quantized) {
    const float most = float(rounding.levels);
    by_pieces(x, begin, end, [&](int64_t first, int64_t last, float row_scale) {
        const float *data = x.data;
        const float factor = row_scale * rounding.factor;
        const auto counts = mask.piece(first, last);
        const auto scaled = [&](int64_t i) {
            float v = data[i] * factor;
            v = v == v ? v : 0.0f;
            v = v > most ? most : v;
            return v < -most ? -most : v;
        };
        if (!rounding.at_random) {
            for (int64_t i = first; i < last; ++i)
                quantized[i] = int8_t(int32_t(scaled(i) + round_to_nearest - round_to_nearest)) & counts(i);
            return;
        }
        // Narrowed afterwards: the compiler would otherwise narrow each of the two terms.
        float rounded[elements_at_once];
        const uint32_t low = uint32_t(first), key = rounding.keys[0];
        const uint32_t second_key = rounding.keys[1] + uint32_t(first >> 32) * 0x9e3779b9u;
        for (uint32_t j = 0; j < uint32_t(last - first); ++j) {
            const float v = scaled(first + j);
            const float below = Simd::floor(v);
            rounded[j] = uniform(low + j, key, second_key) < v - below ? below + 1.0f : below;
        }
        for (int64_t i = first; i < last; ++i) quantized[i] = int8_t(int32_t(rounded[i - first])) & counts(i);
    });
}

inline void quantize(Floats x, Rounding rounding, int64_t begin, int64_t end, int8_t *quantized) {
    if (x.positive_floats)
        quantize_where(x, rounding, begin, end, WherePositive<float>{x.positive_floats}, quantized);
    else if (x.positive_bytes)
        quantize_where(x, rounding, begin, end, WherePositive<int8_t>{x.positive_bytes}, quantized);
    else if (x.positive_bits)
        quantize_where(x, rounding, begin, end, WhereBitsAreSet{x.positive_bits}, quantized);
    else
        quantize_where(x, rounding, begin, end, Everywhere(), quantized);
}

inline void positive_bits(const float *x, int64_t size, int64_t begin, int64_t end, uint8_t *bits) {
    const int64_t whole = size / 8 < end ? size / 8 : end;
    for (int64_t byte = begin; byte < whole; ++byte) {
        __builtin_prefetch(x + 8 * byte + elements_ahead);
        bits[byte] = Simd::positive_bits(x + 8 * byte);
    }
    if (whole < end) {
        float last[8] = {};
        for (int64_t i = 8 * whole; i < size; ++i) last[i - 8 * whole] = x[i];
        bits[whole] = Simd::positive_bits(last);
    }
}
