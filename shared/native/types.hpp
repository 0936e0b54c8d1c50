// What the dispatcher and the instruction sets say to each other: plain structs and function
// pointers, nothing that would be compiled into both of them.
#pragma once

#include <cstdint>

namespace tenfold {

// A strided matrix; element (i, j) lies at data[i * row_stride + j * column_stride].
struct Matrix {
    float *data;
    int64_t rows, columns, row_stride, column_stride;
};

// Some columns of a matrix, row after row at a fixed stride, padded with zeros to whole vectors.
struct Panel {
    const float *data;
    int64_t stride;
    int vectors;
};

// A sparse matrix in BSR; CSR is the case block_height == block_width == 1.
template <class Index>
struct Sparse {
    int64_t block_rows;
    int64_t block_height, block_width;
    const Index *crow;
    const Index *col;
    const float *values;
};

// The part of every kernel that knows the instruction set. All ranges are half open, and a part of
// the work never writes what another part reads or writes.
template <class Index>
struct SparseKernels {
    // out[:, first_column:] = A @ panel for the block rows of the range.
    void (*product)(Sparse<Index> a, Panel panel, int64_t begin, int64_t end, Matrix out, int64_t first_column);
    // out = A @ x for the block rows of the range; x and out are contiguous.
    void (*vector_product)(Sparse<Index> a, const float *x, int64_t begin, int64_t end, float *out);
    // accumulated += transpose(A) @ panel for all of A; both have the panel's stride.
    void (*transposed_product)(Sparse<Index> a, Panel panel, float *accumulated);
    // values += (left @ transpose(right)) at the pattern of A, for the block rows of the range.
    void (*sampled_product)(Sparse<Index> a, Panel left, Panel right, int64_t begin, int64_t end, float *values);
};

// A graph: entry p of row i is an edge from node indices[p] to node i. Values of edges are stored by
// edge, and entry p is edge edge_ids[p], or p where edge_ids is null.
template <class Index>
struct Graph {
    int64_t rows, entries;
    const Index *indptr;
    const Index *indices;
    const Index *edge_ids;
};

// Rows of which whole vectors are read, up to `overread` elements past the end of a row. What is read
// there belongs to the next row and its result is dropped. The last rows, which have no next one, lie
// in a padded copy.
constexpr int64_t overread = 64;

template <class Element>
struct Rows {
    const Element *data;
    const Element *last;
    int64_t first_of_last;
    int64_t stride;
};

// Sizes of the features of a node: `heads` vectors of `depth` numbers.
struct Heads {
    int64_t heads, depth;
};

// Operators on graphs, for the rows of a range; tenfold.kernels says what each computes. Values that are
// int8_t meet their scale at the end.
template <class Index, class X>
struct CopyU {
    // Returns the bits of the largest magnitude, which order magnitudes and put NaN above them.
    int32_t (*copy_u)(Graph<Index>, Rows<X> x, int64_t begin, int64_t end, float scale, const float *row_scale,
                      float *out);
};

template <class Index, class X, class E>
struct UMulE {
    void (*u_mul_e)(Graph<Index>, Rows<X> x, const E *e, Heads, int64_t begin, int64_t end, float scale, float *out);
};

template <class Index, class X>
struct UDotV {
    void (*u_dot_v)(Graph<Index>, Rows<X> u, Rows<X> v, Heads, int64_t begin, int64_t end, float scale, float *out);
};

template <class Index, class U, class V>
struct UAddV {
    void (*u_add_v)(Graph<Index>, const U *u, const V *v, int64_t heads, int64_t begin, int64_t end, float u_scale,
                    float v_scale, float *out);
};

template <class Index, class E>
struct EdgeSum {
    void (*edge_sum)(Graph<Index>, const E *e, int64_t heads, int64_t begin, int64_t end, float scale, float *out);
};

template <class Index>
struct EdgeAttention {
    void (*forward)(Graph<Index>, const float *u, const float *v, int64_t heads, float slope, int64_t begin,
                    int64_t end, float *out);
    void (*backward)(Graph<Index>, const float *u, const float *v, const float *attention, const float *gradient,
                     int64_t heads, float slope, int64_t begin, int64_t end, float *d_score, float *d_v);
};

// A kernel is found by the types of its operands.
template <class Index>
struct GraphKernels : CopyU<Index, int8_t>,
                      CopyU<Index, float>,
                      UMulE<Index, int8_t, int8_t>,
                      UMulE<Index, int8_t, float>,
                      UMulE<Index, float, int8_t>,
                      UMulE<Index, float, float>,
                      UDotV<Index, int8_t>,
                      UDotV<Index, float>,
                      UAddV<Index, int8_t, int8_t>,
                      UAddV<Index, int8_t, float>,
                      UAddV<Index, float, int8_t>,
                      UAddV<Index, float, float>,
                      EdgeSum<Index, int8_t>,
                      EdgeSum<Index, float>,
                      EdgeAttention<Index> {};

// Floats in row-major order with what is done to them before they are quantised. Pointers are null
// where there is nothing to do.
struct Floats {
    const float *data;
    int64_t columns;
    const float *row_scale;
    // Elements count as zero where these, of one type or another, are not positive; bits as positive_bits packs them.
    const float *positive_floats;
    const int8_t *positive_bytes;
    const uint8_t *positive_bits;
};

// How floats become integers: x * factor, rounded at random with the hash of each element's index
// and the keys, or to nearest.
struct Rounding {
    float factor;
    int levels;
    bool at_random;
    uint32_t keys[2];
};

// A strided matrix of int8; element (i, j) lies at data[i * row_stride + j * column_stride].
struct Int8Matrix {
    const int8_t *data;
    int64_t rows, columns, row_stride, column_stride;
};

// What becomes of a sum of products: relu(sum * scale * row_scale + bias). Pointers may be null.
struct Epilogue {
    float scale;
    const float *row_scale, *bias;
    bool relu;
    // Null, or bits of where the result is positive, as positive_bits packs them.
    uint8_t *positive;
};

// So many operands are free behind a row of terms that lie side by side: the rows of a tile, a power of two apart,
// would otherwise share a few lines of the first-level cache.
constexpr int row_padding = 64;

// Products of int8 matrices by tiles of the result. Operands are packed, which makes each of them
// operand_bytes large and their number along the sum a multiple of term_unit.
struct Int8Kernels {
    int term_unit, operand_bytes, block_terms, tile_rows, tile_columns, rows_at_once;

    // The panels [begin, end) of tile_columns columns of b.
    void (*pack_columns)(Int8Matrix b, int64_t begin, int64_t end, void *panels);
    // Rows [begin, end) of the product with the packed columns; `rows` has room for tile_rows packed rows.
    // Returns the key of the largest magnitude.
    uint32_t (*product)(Int8Matrix a, const void *panels, int64_t begin, int64_t end, void *rows, Epilogue epilogue,
                        float *out, int64_t columns);
    // sums += a[:, begin:end] @ b[begin:end], block_terms at a time. `rows`, `columns` and `row_sums`
    // have room for all rows of a, in multiples of rows_at_once, and all panels of b over a block.
    void (*accumulate)(Int8Matrix a, Int8Matrix b, int64_t begin, int64_t end, void *rows, void *columns,
                       int32_t *row_sums, int64_t *sums);
    // The rows [begin, end) of the sums through the epilogue; returns the key of the largest magnitude.
    uint32_t (*finish)(const int64_t *sums, int64_t begin, int64_t end, Epilogue epilogue, float *out,
                       int64_t columns);
};

struct InstructionSet {
    const char *name;
    bool (*supported)();
    int width;

    // Rows [begin, end) of columns [first_column, first_column + panel width) of a matrix.
    void (*pack)(Matrix from, int64_t first_column, int vectors, int64_t begin, int64_t end, float *to);
    void (*unpack)(const float *from, int vectors, int64_t begin, int64_t end, Matrix to, int64_t first_column);

    SparseKernels<int32_t> sparse32;
    SparseKernels<int64_t> sparse64;
    GraphKernels<int32_t> graph32;
    GraphKernels<int64_t> graph64;

    // Counts digit (key >> shift) & mask over the keys |x| with key >> prefix_shift == prefix;
    // returns whether a NaN was met.
    bool (*count_digits)(const float *x, int64_t begin, int64_t end, uint32_t prefix, int prefix_shift, int shift,
                         uint32_t mask, int64_t *counts);
    int64_t (*count_equal)(const float *x, int64_t begin, int64_t end, uint32_t key);
    // keep[i] = key > threshold, or key == threshold while ties last.
    void (*keep_above)(const float *x, int64_t begin, int64_t end, uint32_t threshold, int64_t ties, bool *keep);
    void (*group_norms)(const float *x, int64_t columns, int64_t begin, int64_t end, float *norms);

    // Of the elements of the range; a largest magnitude is returned as a key, see generic/magnitude.hpp.
    uint32_t (*absmax)(Floats x, int64_t begin, int64_t end);
    void (*quantize)(Floats x, Rounding rounding, int64_t begin, int64_t end, int8_t *quantized);
    // Bit j of byte i is whether x[8 i + j] > 0, for the bytes [begin, end) of x's `size` elements.
    void (*positive_bits)(const float *x, int64_t size, int64_t begin, int64_t end, uint8_t *bits);

    Int8Kernels int8;
};

extern const InstructionSet portable;
#if defined(TENFOLD_X86)
extern const InstructionSet avx2;
extern const InstructionSet avx512;
extern const InstructionSet avx512_vnni;
#endif
#if defined(TENFOLD_AMX)
extern const InstructionSet amx;
#endif

}  // namespace tenfold
