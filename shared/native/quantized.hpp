// Quantisation and products of int8 matrices over threads, for any instruction set.
#pragma once

#include <cstring>
#include <utility>

#include "parallel.hpp"
#include "sparse.hpp"
#include "types.hpp"

namespace tenfold {

// Calls function(begin, end), which returns a key, over the ranges, and gives the largest magnitude.
template <class Function>
float largest_magnitude(const std::vector<int64_t> &bounds, Function &&function) {
    const int parts = int(bounds.size()) - 1;
    std::vector<uint32_t> keys(parts);
    in_parallel(parts, [&](int part) { keys[part] = function(part, bounds[part], bounds[part + 1]); });
    const uint32_t key = *std::max_element(keys.begin(), keys.end());
    float magnitude;
    std::memcpy(&magnitude, &key, sizeof magnitude);
    return magnitude;
}

inline float absmax(const InstructionSet &isa, Floats x, int64_t size, int threads) {
    return largest_magnitude(even_bounds(size, parts_for(size, size, threads)),
                             [&](int, int64_t begin, int64_t end) { return isa.absmax(x, begin, end); });
}

inline void quantize(const InstructionSet &isa, Floats x, Rounding rounding, int64_t size, int8_t *quantized,
                     int threads) {
    const int parts = parts_for(size, size, threads);
    const auto bounds = even_bounds(size, parts);
    in_parallel(parts, [&](int part) { isa.quantize(x, rounding, bounds[part], bounds[part + 1], quantized); });
}

inline void positive_bits(const InstructionSet &isa, const float *x, int64_t size, uint8_t *bits, int threads) {
    const int64_t bytes = (size + 7) / 8;
    const int parts = parts_for(size, bytes, threads);
    const auto bounds = even_bounds(bytes, parts);
    in_parallel(parts, [&](int part) { isa.positive_bits(x, size, bounds[part], bounds[part + 1], bits); });
}

inline int64_t whole(int64_t size, int64_t unit) { return (size + unit - 1) / unit * unit; }

// A product of bytes takes this much less time than one of floats, which parts_for counts in.
constexpr int64_t int8_speed = 4;

// out = epilogue(a @ b) by rows: all of b is packed, and every tile of the result is finished at once.
inline float product_by_rows(const InstructionSet &isa, Int8Matrix a, Int8Matrix b, Epilogue epilogue, float *out,
                             int threads) {
    const Int8Kernels &int8 = isa.int8;
    const int64_t row_bytes = whole(a.columns, int8.term_unit) * int8.operand_bytes;
    const int64_t panels = (b.columns + int8.tile_columns - 1) / int8.tile_columns;
    const Buffer columns = allocate(panels * int8.tile_columns * row_bytes / sizeof(float));
    const int packing_parts = parts_for(b.rows * b.columns, panels, threads);
    const auto panel_bounds = even_bounds(panels, packing_parts);
    in_parallel(packing_parts, [&](int part) {
        int8.pack_columns(b, panel_bounds[part], panel_bounds[part + 1], columns.get());
    });

    const int64_t tiles = (a.rows + int8.tile_rows - 1) / int8.tile_rows;
    auto bounds = even_bounds(tiles, parts_for(a.rows * a.columns * b.columns / int8_speed, tiles, threads));
    for (int64_t &bound : bounds) bound = std::min(bound * int8.tile_rows, a.rows);
    const int64_t rows_bytes = whole(int8.tile_rows * row_bytes, 64);
    const Buffer rows = allocate(int64_t(bounds.size()) * rows_bytes / sizeof(float));
    return largest_magnitude(bounds, [&](int part, int64_t begin, int64_t end) {
        return int8.product(a, columns.get(), begin, end, rows.get() + part * rows_bytes / sizeof(float), epilogue,
                            out, b.columns);
    });
}

// The same for a small result and long sums: threads share out the terms, blocks of which are packed and
// stay in the cache. Sums of integers do not depend on their order.
inline float product_by_terms(const InstructionSet &isa, Int8Matrix a, Int8Matrix b, Epilogue epilogue, float *out,
                              int threads) {
    const Int8Kernels &int8 = isa.int8;
    const int64_t block = int8.block_terms;
    const int parts = parts_for(a.rows * a.columns * b.columns / int8_speed, (a.columns + block - 1) / block, threads);
    const auto bounds = even_bounds(a.columns, parts);
    const int64_t size = a.rows * b.columns;
    std::vector<int64_t> sums(parts * size);
    const int64_t rows = whole(a.rows, int8.rows_at_once), columns = whole(b.columns, int8.tile_columns);
    const int64_t row_floats = rows * (block + row_padding) * int8.operand_bytes / sizeof(float);
    const int64_t column_floats = columns * block * int8.operand_bytes / sizeof(float);
    const int64_t floats = row_floats + column_floats + rows;
    const Buffer buffer = allocate(parts * floats);
    in_parallel(parts, [&](int part) {
        float *memory = buffer.get() + part * floats;
        int8.accumulate(a, b, bounds[part], bounds[part + 1], memory, memory + row_floats,
                        reinterpret_cast<int32_t *>(memory + row_floats + column_floats), sums.data() + part * size);
    });
    for (int part = 1; part < parts; ++part)
        for (int64_t i = 0; i < size; ++i) sums[i] += sums[part * size + i];
    return largest_magnitude(even_bounds(a.rows, 1), [&](int, int64_t begin, int64_t end) {
        return int8.finish(sums.data(), begin, end, epilogue, out, b.columns);
    });
}

// A column-major left factor, which is a transposed matrix, is packed block by block; if its product with b is too
// large to be summed up beside it, by rows all the same.
inline float int8_matmul(const InstructionSet &isa, Int8Matrix a, Int8Matrix b, Epilogue epilogue, float *out,
                         int threads) {
    constexpr int64_t most_sums = 1 << 22;
    const int64_t size = a.rows * b.columns;
    const bool by_terms = a.column_stride != 1 && size <= most_sums;
    if (by_terms || b.columns % 8 != 0) {
        uint8_t *const positive = std::exchange(epilogue.positive, nullptr);
        const float largest = (by_terms ? product_by_terms : product_by_rows)(isa, a, b, epilogue, out, threads);
        if (positive) positive_bits(isa, out, size, positive, threads);
        return largest;
    }
    return product_by_rows(isa, a, b, epilogue, out, threads);
}

}  // namespace tenfold
