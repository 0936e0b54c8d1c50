// |x| read as an integer, its key: orders floats by magnitude, with infinities above all numbers and NaN
// above infinities, so that a maximum of keys propagates both.

inline uint32_t magnitude_key(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits & 0x7fffffffu;
}
