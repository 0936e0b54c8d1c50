// Four 32-bit or eight 16-bit integers at a time.

struct Integers {
    typedef float Float __attribute__((vector_size(16)));
    typedef int16_t Short __attribute__((vector_size(16)));
    typedef int32_t Int __attribute__((vector_size(16)));

    static Short zero_shorts() { return Short{}; }
    static Short broadcast_pair(int8_t even, int8_t odd) { return Short{even, odd, even, odd, even, odd, even, odd}; }
    static Short widen(const int8_t *p) {
        Bytes x;
        __builtin_memcpy(&x, p, sizeof x);
        return __builtin_convertvector(x, Short);
    }
    static Short interleave(const int8_t *even, const int8_t *odd) {
        return Short{even[0], odd[0], even[1], odd[1], even[2], odd[2], even[3], odd[3]};
    }
    static Short first_of(Short x, int count) {
        constexpr Short place{0, 1, 2, 3, 4, 5, 6, 7};
        return x & (place < int16_t(count));
    }
    static Short add(Short a, Short b) { return a + b; }
    static Int dot_pairs(Short a, Short b, Int sum) { return sum + evens(a) * evens(b) + odds(a) * odds(b); }
    static void sum_each(const Int (&x)[4], int32_t (&sums)[4]) {
        for (int r = 0; r < 4; ++r) sums[r] = x[r][0] + x[r][1] + x[r][2] + x[r][3];
    }
    static Float to_float(Int x) { return __builtin_convertvector(x, Float); }
    static Float load(const int8_t *p) { return Float{float(p[0]), float(p[1]), float(p[2]), float(p[3])}; }
    static void store(int16_t *p, Short x) { __builtin_memcpy(p, &x, sizeof x); }
    static void store_floats(float *p, Short x) {
        for (int lane = 0; lane < 8; ++lane) p[lane] = x[lane];
    }
    static float floor(float x) {
        const float truncated = float(int32_t(x));
        return truncated > x ? truncated - 1.0f : truncated;
    }
    static uint8_t positive_bits(const float *p) {
        uint64_t zeros_and_ones = 0;
        for (int lane = 0; lane < 8; ++lane) zeros_and_ones |= uint64_t(p[lane] > 0.0f) << 8 * lane;
        // Moves the byte of lane j to bit j of the highest byte.
        return uint8_t(zeros_and_ones * 0x0102040810204080u >> 56);
    }
    static void spread_bits(uint64_t bits, int8_t *bytes) {
        for (int byte = 0; byte < 8; ++byte) {
            const uint64_t each_bit = (bits >> 8 * byte & 0xff) * 0x0101010101010101u & 0x8040201008040201u;
            const uint64_t zeros_and_ones = (each_bit + 0x7f7f7f7f7f7f7f7fu) >> 7 & 0x0101010101010101u;
            const uint64_t zeros_and_minus_ones = zeros_and_ones * 0xff;
            __builtin_memcpy(bytes + 8 * byte, &zeros_and_minus_ones, sizeof zeros_and_minus_ones);
        }
    }

private:
    typedef int8_t Bytes __attribute__((vector_size(8)));

    static Int evens(Short x) { return Int(x) << 16 >> 16; }
    static Int odds(Short x) { return Int(x) >> 16; }
};
