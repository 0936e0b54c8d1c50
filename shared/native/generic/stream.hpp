// A result of this many floats does not stay in a cache of the second level until it is used: its whole vectors
// are written past the caches, which so need not read first what they replace.
constexpr int64_t streamed_floats = 1 << 20;

template <class S>
bool is_streamed(const float *out, int64_t rows, int64_t columns) {
    return rows * columns >= streamed_floats && columns % S::width == 0 &&
           reinterpret_cast<uintptr_t>(out) % (S::width * sizeof(float)) == 0;
}
