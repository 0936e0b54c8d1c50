// Four floats at a time through the compiler's vector extension: SSE2, NEON, or plain code.
#include "../types.hpp"

namespace tenfold {
namespace {

#include "integers.hpp"

struct Simd : Integers {
    static constexpr int width = 4;
    static constexpr int registers = 16;

    using Integers::add;
    using Integers::load;
    using Integers::store;

    static Float zero() { return Float{}; }
    static Float broadcast(float x) { return Float{x, x, x, x}; }
    static Float load(const float *p) {
        Float x;
        __builtin_memcpy(&x, p, sizeof x);
        return x;
    }
    static void store(float *p, Float x) { __builtin_memcpy(p, &x, sizeof x); }
    static void stream(float *p, Float x) { store(p, x); }
    static void end_stream() {}
    static Float add(Float a, Float b) { return a + b; }
    static Float multiply_add(Float a, Float b, Float c) { return a * b + c; }
    static float sum(Float x) { return (x[0] + x[2]) + (x[1] + x[3]); }
    template <class Index>
    static Float gather(const float *x, const Index *at) {
        return Float{x[at[0]], x[at[1]], x[at[2]], x[at[3]]};
    }
    static void transpose(const float *from, int64_t from_stride, float *to, int64_t to_stride) {
        for (int i = 0; i < width; ++i)
            for (int j = 0; j < width; ++j) to[j * to_stride + i] = from[i * from_stride + j];
    }

    using Operand = int16_t;
    static constexpr int group = 2;
    static constexpr int offset = 0;
    static constexpr int tile_rows = 6;
    static constexpr int tile_vectors = 2;
    static constexpr int step_unit = 1;
    static constexpr int block_terms = 512;
    static constexpr bool has_tiles = false;
    struct TileSettings {};

    static Int int_zero() { return Int{}; }
    static Int load_operands(const void *p) {
        Int x;
        __builtin_memcpy(&x, p, sizeof x);
        return x;
    }
    static Int broadcast_group(const void *p) {
        int32_t group;
        __builtin_memcpy(&group, p, sizeof group);
        return Int{group, group, group, group};
    }
    static Int dot(Int sums, Int columns, Int row) {
#if defined(__SSE2__)
        typedef int16_t Pairs __attribute__((vector_size(16)));
        return sums + Int(__builtin_ia32_pmaddwd128(Pairs(columns), Pairs(row)));
#else
        // The low and the high half of each lane, sign-extended.
        return sums + (columns << 16 >> 16) * (row << 16 >> 16) + (columns >> 16) * (row >> 16);
#endif
    }
    static void store_int(int32_t *p, Int x) { __builtin_memcpy(p, &x, sizeof x); }
};

bool supported() { return true; }

#include "../generic/instruction_set.hpp"

}  // namespace

extern const InstructionSet portable = instruction_set("portable", supported);

}  // namespace tenfold
