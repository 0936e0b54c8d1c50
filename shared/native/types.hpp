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

struct InstructionSet {
    const char *name;
    bool (*supported)();
    int width;

    // Rows [begin, end) of columns [first_column, first_column + panel width) of a matrix.
    void (*pack)(Matrix from, int64_t first_column, int vectors, int64_t begin, int64_t end, float *to);
    void (*unpack)(const float *from, int vectors, int64_t begin, int64_t end, Matrix to, int64_t first_column);

    SparseKernels<int32_t> sparse32;
    SparseKernels<int64_t> sparse64;

    // Counts digit (key >> shift) & mask over the keys |x| with key >> prefix_shift == prefix;
    // returns whether a NaN was met.
    bool (*count_digits)(const float *x, int64_t begin, int64_t end, uint32_t prefix, int prefix_shift, int shift,
                         uint32_t mask, int64_t *counts);
    int64_t (*count_equal)(const float *x, int64_t begin, int64_t end, uint32_t key);
    // keep[i] = key > threshold, or key == threshold while ties last.
    void (*keep_above)(const float *x, int64_t begin, int64_t end, uint32_t threshold, int64_t ties, bool *keep);
    void (*group_norms)(const float *x, int64_t columns, int64_t begin, int64_t end, float *norms);
};

extern const InstructionSet portable;
#if defined(TENFOLD_X86)
extern const InstructionSet avx2;
extern const InstructionSet avx512;
#endif

}  // namespace tenfold
