// Sparse x dense products over threads and panels, for any instruction set.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

#include "parallel.hpp"
#include "types.hpp"

namespace tenfold {

// A panel of this many bytes stays in the second-level cache of one core beside the sparse matrix
// that streams past it.
constexpr int64_t panel_bytes = 512 * 1024;

struct Free {
    void operator()(void *memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<float[], Free>;

inline Buffer allocate(int64_t floats) {
    const size_t bytes = (size_t(floats) * sizeof(float) + 63) / 64 * 64;
    auto *memory = static_cast<float *>(std::aligned_alloc(64, std::max<size_t>(bytes, 64)));
    if (!memory) throw std::bad_alloc();
    return Buffer(memory);
}

inline const SparseKernels<int32_t> &kernels_of(const InstructionSet &isa, int32_t) { return isa.sparse32; }
inline const SparseKernels<int64_t> &kernels_of(const InstructionSet &isa, int64_t) { return isa.sparse64; }

// How many vectors wide a panel is: not wider than the matrix, and all its rows in the cache.
inline int panel_vectors(const InstructionSet &isa, int64_t rows, int64_t columns, int64_t least_panels = 1) {
    int vectors = 4;
    while (vectors > 1 && ((vectors - 1) * isa.width >= columns || rows * vectors * isa.width * 4 > panel_bytes ||
                           (columns + vectors * isa.width - 1) / (vectors * isa.width) < least_panels))
        vectors /= 2;
    return vectors;
}

inline Matrix columns_of(Matrix matrix, int64_t first, int64_t count) {
    return {matrix.data + first * matrix.column_stride, matrix.rows, std::min(count, matrix.columns - first),
            matrix.row_stride, matrix.column_stride};
}

// All the columns of a matrix as panels of equal width, side by side.
class Panels {
public:
    Panels(const InstructionSet &isa, Matrix matrix, int vectors, int threads)
        : rows(matrix.rows), width(int64_t(vectors) * isa.width), vectors(vectors),
          count((matrix.columns + width - 1) / width) {
        if (matrix.column_stride == 1 && matrix.columns == width && matrix.row_stride == width) {
            data = matrix.data;
            return;
        }
        buffer = allocate(count * rows * width);
        data = buffer.get();
        const int parts = parts_for(count * rows * width, rows, threads);
        // Whole tiles for every part but the last, so that they are transposed in registers.
        const auto bounds = even_bounds((rows + isa.width - 1) / isa.width, parts);
        in_parallel(parts, [&](int part) {
            const int64_t begin = bounds[part] * isa.width, end = std::min(rows, bounds[part + 1] * isa.width);
            for (int64_t p = 0; p < count; ++p)
                isa.pack(matrix, p * width, vectors, begin, end, buffer.get() + p * rows * width);
        });
    }

    Panel operator[](int64_t p) const { return {data + p * rows * width, width, vectors}; }

    const int64_t rows, width;
    const int vectors;
    const int64_t count;

private:
    Buffer buffer;
    const float *data;
};

template <class Index>
int64_t entries_of(const Sparse<Index> &a) {
    return int64_t(a.crow[a.block_rows]) * a.block_height * a.block_width;
}

// out = A @ dense.
template <class Index>
void product(const InstructionSet &isa, Sparse<Index> a, Matrix dense, Matrix out, int threads) {
    const auto &kernels = kernels_of(isa, Index());
    const int parts = parts_for(entries_of(a) * dense.columns, a.block_rows, threads);
    const auto bounds = balanced_bounds(a.crow, a.block_rows, parts);
    if (dense.columns == 1 && dense.row_stride == 1 && out.row_stride == 1) {
        in_parallel(parts, [&](int part) {
            kernels.vector_product(a, dense.data, bounds[part], bounds[part + 1], out.data);
        });
        return;
    }
    const int vectors = panel_vectors(isa, dense.rows, dense.columns);
    const int64_t width = int64_t(vectors) * isa.width;
    // While there is a panel for every thread, each packs and multiplies its own, which stays in the
    // cache of its core; the panels that are left over are shared out by rows.
    const int64_t panels = (dense.columns + width - 1) / width;
    const int64_t rounds = parts > 1 ? panels / parts : 0;
    if (rounds > 0) {
        const int64_t size = dense.rows * width;
        const Buffer buffer = allocate(parts * size);
        in_parallel(parts, [&](int part) {
            float *packed = buffer.get() + part * size;
            for (int64_t p = part; p < rounds * parts; p += parts) {
                isa.pack(dense, p * width, vectors, 0, dense.rows, packed);
                kernels.product(a, {packed, width, vectors}, 0, a.block_rows, out, p * width);
            }
        });
    }
    // One panel at a time: it is still in the cache when it is used.
    for (int64_t first = rounds * parts * width; first < dense.columns; first += width) {
        const Panels panel(isa, columns_of(dense, first, width), vectors, threads);
        in_parallel(parts, [&](int part) {
            kernels.product(a, panel[0], bounds[part], bounds[part + 1], out, first);
        });
    }
}

// out = transpose(A) @ dense. Rows of A scatter into all of the output, so threads share out its columns.
template <class Index>
void transposed_product(const InstructionSet &isa, Sparse<Index> a, Matrix dense, Matrix out, int threads) {
    const auto &kernels = kernels_of(isa, Index());
    const int vectors = panel_vectors(isa, std::max(dense.rows, out.rows), dense.columns, threads);
    const Panels panels(isa, dense, vectors, threads);
    const int parts = parts_for(entries_of(a) * dense.columns, panels.count, threads);
    const int64_t size = out.rows * panels.width;
    const Buffer buffer = allocate(parts * size);
    in_parallel(parts, [&](int part) {
        float *accumulated = buffer.get() + part * size;
        for (int64_t p = part; p < panels.count; p += parts) {
            std::fill(accumulated, accumulated + size, 0.0f);
            kernels.transposed_product(a, panels[p], accumulated);
            isa.unpack(accumulated, vectors, 0, out.rows, out, p * panels.width);
        }
    });
}

// values = (left @ transpose(right)) at the pattern of A.
template <class Index>
void sampled_product(const InstructionSet &isa, Sparse<Index> a, Matrix left, Matrix right, float *values,
                     int threads) {
    const auto &kernels = kernels_of(isa, Index());
    const int vectors = panel_vectors(isa, std::max(left.rows, right.rows), left.columns);
    const Panels left_panels(isa, left, vectors, threads), right_panels(isa, right, vectors, threads);
    const int parts = parts_for(entries_of(a) * left.columns, a.block_rows, threads);
    const auto bounds = balanced_bounds(a.crow, a.block_rows, parts);
    in_parallel(parts, [&](int part) {
        const int64_t size = a.block_height * a.block_width;
        std::fill(values + a.crow[bounds[part]] * size, values + a.crow[bounds[part + 1]] * size, 0.0f);
        for (int64_t p = 0; p < left_panels.count; ++p)
            kernels.sampled_product(a, left_panels[p], right_panels[p], bounds[part], bounds[part + 1], values);
    });
}

}  // namespace tenfold
