// Products of int8 matrices in tiles that stay in registers over a whole sum.
//
// Operands are packed into steps of a group of consecutive terms: `S::dot` adds the products of a group to
// every lane, which are pairs of 16-bit numbers, exact for all int8, or four bytes. Columns are stored with
// `S::offset` added where the instruction wants them unsigned; offset times the sum of the row is then taken
// off. A processor with registers of two dimensions has an `S::multiply_tile` of its own, which takes
// `S::step_unit` steps at a time and wants the terms of a row side by side.

// No sum of this many products is beyond int32, even with the offset: 2^16 * 128 * 255 < 2^31.
constexpr int64_t most_terms = 1 << 16;

template <class S>
constexpr int tile_columns = S::tile_vectors * S::width;

template <class S>
int64_t steps_of(int64_t terms) {
    constexpr int unit = S::group * S::step_unit;
    return (terms + unit - 1) / unit * S::step_unit;
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// sums = rows @ columns over the steps. Rows lie row_stride and their steps step_stride operands apart.
// Without the pragmas the sums are stored after every step.
template <class S, int vectors>
void multiply_tile(const typename S::Operand *rows, int64_t row_stride, int64_t step_stride,
                   const typename S::Operand *columns, int64_t steps, int32_t *sums) {
    if constexpr (S::has_tiles) {
        S::template multiply_tile<vectors>(rows, row_stride, columns, steps, sums);
    } else {
        using Int = typename S::Int;
        Int total[S::tile_rows][vectors];
#pragma GCC unroll 8
        for (int r = 0; r < S::tile_rows; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) total[r][v] = S::int_zero();
        for (int64_t step = 0; step < steps; ++step) {
            Int column[vectors];
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) column[v] = S::load_operands(columns + v * S::width * S::group);
#pragma GCC unroll 8
            for (int r = 0; r < S::tile_rows; ++r) {
                const Int row = S::broadcast_group(rows + r * row_stride);
#pragma GCC unroll 8
                for (int v = 0; v < vectors; ++v) total[r][v] = S::dot(total[r][v], column[v], row);
            }
            rows += step_stride;
            columns += tile_columns<S> * S::group;
        }
#pragma GCC unroll 8
        for (int r = 0; r < S::tile_rows; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) S::store_int(sums + r * tile_columns<S> + v * S::width, total[r][v]);
    }
}

// A tile of which only some columns are wanted; the rest of `sums` is left as it is.
template <class S>
void multiply_tile(const typename S::Operand *rows, int64_t row_stride, int64_t step_stride,
                   const typename S::Operand *columns, int64_t steps, int64_t wanted, int32_t *sums) {
    constexpr int most = S::tile_vectors;
    switch ((wanted + S::width - 1) / S::width) {
        case 1: return multiply_tile<S, 1>(rows, row_stride, step_stride, columns, steps, sums);
        case 2: return multiply_tile<S, 2>(rows, row_stride, step_stride, columns, steps, sums);
        case 3: return multiply_tile<S, most < 3 ? most : 3>(rows, row_stride, step_stride, columns, steps, sums);
        default: return multiply_tile<S, most>(rows, row_stride, step_stride, columns, steps, sums);
    }
}

// Interleaves `group` lines of `size` elements, of which there are only `lines` and `count`: the rest are zeros.
template <class S, int size>
void interleave(const int8_t *from, int64_t line_stride, int64_t lines, int64_t stride, int64_t count, int offset,
                typename S::Operand *to) {
    int8_t padded[S::group][size];
    const int8_t *line[S::group];
    for (int g = 0; g < S::group; ++g) {
        line[g] = from + g * line_stride;
        if (g < lines && count == size && stride == 1) continue;
        __builtin_memset(padded[g], 0, size);
        if (stride == 1)
            __builtin_memcpy(padded[g], line[g], g < lines ? count : 0);
        else
            for (int64_t j = 0; g < lines && j < count; ++j) padded[g][j] = line[g][j * stride];
        line[g] = padded[g];
    }
    // A group is a 32-bit word, put together from halves: the compiler's own interleaving of bytes takes
    // several times as long.
    constexpr int at_once = size < 16 ? size : 16;
    for (int j = 0; j < size; j += at_once) {
        uint16_t half[2][at_once];
        uint32_t word[at_once];
        for (int h = 0; h < 2; ++h)
            if constexpr (S::group == 4) {
                uint8_t part[2][at_once];
                for (int g = 0; g < 2; ++g)
                    for (int i = 0; i < at_once; ++i) part[g][i] = uint8_t(line[2 * h + g][j + i] + offset);
                for (int i = 0; i < at_once; ++i) half[h][i] = uint16_t(part[0][i] | part[1][i] << 8);
            } else {
                for (int i = 0; i < at_once; ++i) half[h][i] = uint16_t(line[h][j + i] + offset);
            }
        for (int i = 0; i < at_once; ++i) word[i] = half[0][i] | uint32_t(half[1][i]) << 16;
        __builtin_memcpy(to + j * S::group, word, sizeof word);
    }
}

template <class S>
void pack_columns(Int8Matrix b, int64_t begin, int64_t end, void *panels) {
    constexpr int width = tile_columns<S>;
    const int64_t steps = steps_of<S>(b.rows);
    for (int64_t panel = begin; panel < end; ++panel) {
        auto *to = static_cast<typename S::Operand *>(panels) + panel * steps * width * S::group;
        const int64_t first = panel * width;
        const int64_t count = least(width, b.columns - first);
        for (int64_t step = 0; step < steps; ++step, to += width * S::group) {
            const int64_t term = step * S::group;
            interleave<S, width>(b.data + term * b.row_stride + first * b.column_stride, b.row_stride, b.rows - term,
                                 b.column_stride, count, S::offset, to);
        }
    }
}

// Packs up to tile_rows rows one after the other, and takes their sums.
template <class S>
void pack_rows(Int8Matrix a, int64_t first, int64_t count, typename S::Operand *rows, int64_t row_stride,
               int64_t *sums) {
    for (int64_t r = 0; r < S::tile_rows; ++r, rows += row_stride) {
        sums[r] = 0;
        const int64_t terms = r < count ? a.columns : 0;
        const int8_t *from = a.data + (r < count ? first + r : 0) * a.row_stride;
        if (a.column_stride == 1)
            for (int64_t p = 0; p < terms; ++p) rows[p] = typename S::Operand(from[p]);
        else
            for (int64_t p = 0; p < terms; ++p) rows[p] = typename S::Operand(from[p * a.column_stride]);
        for (int64_t p = terms; p < row_stride; ++p) rows[p] = 0;
        if (S::offset)
            for (int64_t p = 0; p < terms; p += most_terms) {
                int32_t sum = 0;
                for (int64_t q = p; q < least(p + most_terms, terms); ++q) sum += int8_t(rows[q]);
                sums[r] += sum;
            }
    }
}

// Stores the wanted part of a row of a tile, and returns its largest magnitude.
template <class Sum>
int32_t finish_row(const Sum *sums, Sum surplus, int64_t count, float factor, const float *bias, bool relu,
                   float *out) {
    int32_t largest = 0;
    for (int64_t j = 0; j < count; ++j) {
        float value = float(sums[j] - surplus) * factor;
        value = bias ? value + bias[j] : value;
        value = relu && value < 0.0f ? 0.0f : value;
        out[j] = value;
        const int32_t key = magnitude_key(value);
        largest = key > largest ? key : largest;
    }
    return largest;
}

inline float factor_of(const Epilogue &epilogue, int64_t row) {
    return epilogue.row_scale ? epilogue.scale * epilogue.row_scale[row] : epilogue.scale;
}

template <class S>
uint32_t int8_product(Int8Matrix a, const void *panels, int64_t begin, int64_t end, void *scratch, Epilogue epilogue,
                      float *out, int64_t columns) {
    using Operand = typename S::Operand;
    constexpr int width = tile_columns<S>;
    const int64_t steps = steps_of<S>(a.columns);
    const int64_t row_stride = steps * S::group;
    auto *rows = static_cast<Operand *>(scratch);
    int64_t row_sums[S::tile_rows];
    alignas(64) int32_t tile[S::tile_rows * width];
    alignas(64) int64_t long_tile[S::tile_rows * width];
    alignas(64) float line[width];
    [[maybe_unused]] const typename S::TileSettings settings;
    const bool streams = is_streamed<S>(out, a.rows, columns);
    int32_t largest = 0;
    for (int64_t first = begin; first < end; first += S::tile_rows) {
        const int64_t count = least(S::tile_rows, end - first);
        pack_rows<S>(a, first, count, rows, row_stride, row_sums);
        for (int64_t column = 0; column < columns; column += width) {
            const auto *panel = static_cast<const Operand *>(panels) + column * row_stride;
            const int64_t wanted = least(width, columns - column);
            const bool is_long = a.columns > most_terms;
            if (is_long) {
                for (int64_t &sum : long_tile) sum = 0;
                for (int64_t term = 0; term < row_stride; term += most_terms) {
                    multiply_tile<S>(rows + term, row_stride, S::group, panel + term * width,
                                     steps_of<S>(least(most_terms, row_stride - term)), wanted, tile);
                    for (int r = 0; r < S::tile_rows; ++r)
                        for (int64_t j = 0; j < wanted; ++j) long_tile[r * width + j] += tile[r * width + j];
                }
            } else {
                multiply_tile<S>(rows, row_stride, S::group, panel, steps, wanted, tile);
            }
            for (int64_t r = 0; r < count; ++r) {
                const float factor = factor_of(epilogue, first + r);
                const float *bias = epilogue.bias ? epilogue.bias + column : nullptr;
                const int64_t surplus = S::offset * row_sums[r];
                float *const target = out + (first + r) * columns + column;
                float *const to = streams ? line : target;
                const int32_t found =
                    is_long ? finish_row(long_tile + r * width, surplus, wanted, factor, bias, epilogue.relu, to)
                            : finish_row(tile + r * width, int32_t(surplus), wanted, factor, bias, epilogue.relu, to);
                largest = found > largest ? found : largest;
                for (int64_t j = 0; streams && j < wanted; j += S::width) S::stream(target + j, S::load(line + j));
                for (int64_t j = 0; epilogue.positive && j < wanted; j += 8)
                    epilogue.positive[(target - out + j) / 8] = S::positive_bits(to + j);
            }
        }
    }
    if (streams) S::end_stream();
    return largest;
}

// So many rows that they are whole tiles and whole vectors.
constexpr int rows_at_once = 96;

// Packs the terms [begin, end) of all rows of a column-major matrix, tile_rows of them side by side or, for
// tiles, one after the other, and takes the sums of the rows.
template <class S>
void pack_row_panels(Int8Matrix a, int64_t begin, int64_t end, typename S::Operand *panels, int64_t panel_size,
                     int32_t *sums) {
    using Operand = typename S::Operand;
    constexpr int line = rows_at_once * S::group;
    alignas(64) Operand lines[S::step_unit * line], ones[S::width * S::group];
    for (Operand &one : ones) one = 1;
    if (S::offset)
        __builtin_memset(sums, 0, (a.rows + rows_at_once - 1) / rows_at_once * rows_at_once * sizeof(int32_t));
    const int64_t steps = steps_of<S>(end - begin);
    for (int64_t step = 0; step < steps; step += S::step_unit)
        for (int64_t first = 0; first < a.rows; first += rows_at_once) {
            const int64_t count = least(rows_at_once, a.rows - first);
            for (int next = 0; next < S::step_unit; ++next) {
                const int64_t term = begin + (step + next) * S::group;
                interleave<S, rows_at_once>(a.data + first * a.row_stride + term * a.column_stride, a.column_stride,
                                            end - term, a.row_stride, count, 0, lines + next * line);
            }
            Operand *to = panels + first / S::tile_rows * panel_size;
            if constexpr (S::has_tiles) {
                // A group is as large as a float, and as many steps as a vector is wide are transposed at once.
                static_assert(S::step_unit == S::width && S::group * sizeof(Operand) == sizeof(float));
                const int64_t row_stride = steps + row_padding / S::group;
                for (int r = 0; r < count; r += S::width)
                    S::transpose(reinterpret_cast<const float *>(lines) + r, rows_at_once,
                                 reinterpret_cast<float *>(to) + r * row_stride + step, row_stride);
            } else {
                constexpr int size = S::tile_rows * S::group;
                for (int64_t panel = 0; panel * S::tile_rows < count; ++panel)
                    __builtin_memcpy(to + panel * panel_size + step * size, lines + panel * size,
                                     size * sizeof(Operand));
            }
            for (int r = 0; S::offset && r < rows_at_once; r += S::width)
                S::store_int(sums + first + r, S::dot(S::load_operands(sums + first + r), S::load_operands(ones),
                                                      S::load_operands(lines + r * S::group)));
        }
}

template <class S>
void int8_accumulate(Int8Matrix a, Int8Matrix b, int64_t begin, int64_t end, void *row_memory, void *column_memory,
                     int32_t *row_sums, int64_t *sums) {
    using Operand = typename S::Operand;
    constexpr int width = tile_columns<S>;
    [[maybe_unused]] const typename S::TileSettings settings;
    auto *rows = static_cast<Operand *>(row_memory);
    auto *columns = static_cast<Operand *>(column_memory);
    alignas(64) int32_t tile[S::tile_rows * width];
    for (int64_t from = begin; from < end; from += S::block_terms) {
        const int64_t to = least(from + S::block_terms, end);
        const int64_t steps = steps_of<S>(to - from);
        const int64_t row_stride = S::has_tiles ? steps * S::group + row_padding : S::group;
        const int64_t panel_size = S::has_tiles ? S::tile_rows * row_stride : steps * S::tile_rows * S::group;
        pack_row_panels<S>(a, from, to, rows, panel_size, row_sums);
        const Int8Matrix part{b.data + from * b.row_stride, to - from, b.columns, b.row_stride, b.column_stride};
        pack_columns<S>(part, 0, (b.columns + width - 1) / width, columns);
        for (int64_t column = 0; column < b.columns; column += width) {
            const int64_t wanted = least(width, b.columns - column);
            for (int64_t first = 0; first < a.rows; first += S::tile_rows) {
                multiply_tile<S>(rows + first / S::tile_rows * panel_size, row_stride, S::tile_rows * S::group,
                                 columns + column * steps * S::group, steps, wanted, tile);
                for (int64_t r = 0; r < least(S::tile_rows, a.rows - first); ++r) {
                    int64_t *into = sums + (first + r) * b.columns + column;
                    const int32_t surplus = S::offset ? S::offset * row_sums[first + r] : 0;
                    for (int64_t j = 0; j < wanted; ++j) into[j] += tile[r * width + j] - surplus;
                }
            }
        }
    }
}

inline uint32_t finish(const int64_t *sums, int64_t begin, int64_t end, Epilogue epilogue, float *out,
                       int64_t columns) {
    int32_t largest = 0;
    for (int64_t i = begin; i < end; ++i) {
        const int32_t found = finish_row(sums + i * columns, int64_t(0), columns, factor_of(epilogue, i), epilogue.bias,
                                         epilogue.relu, out + i * columns);
        largest = found > largest ? found : largest;
    }
    return largest;
}

template <class S>
constexpr Int8Kernels int8_kernels() {
    return {S::group * S::step_unit,
            int(sizeof(typename S::Operand)),
            S::block_terms,
            S::tile_rows,
            tile_columns<S>,
            rows_at_once,
            pack_columns<S>,
            int8_product<S>,
            int8_accumulate<S>,
            finish};
}
