// BSR kernels over panels: register tiles of some rows of a block against the panel.

// sums[r] += block[r, :] @ panel rows, for `height` rows of one block.
template <class S, int vectors, int height>
void block_product(const float *block, int64_t row_step, int64_t column_step, int64_t depth, const float *panel,
                   int64_t stride, typename S::Float (&sums)[height][vectors]) {
    for (int64_t k = 0; k < depth; ++k) {
        typename S::Float row[vectors];
        for (int v = 0; v < vectors; ++v) row[v] = S::load(panel + k * stride + v * S::width);
        for (int r = 0; r < height; ++r) {
            const typename S::Float value = S::broadcast(block[r * row_step + k * column_step]);
            for (int v = 0; v < vectors; ++v) sums[r][v] = S::multiply_add(value, row[v], sums[r][v]);
        }
    }
}

template <class S, int vectors, int height, class Index>
void bsr_rows(Sparse<Index> a, Panel panel, int64_t block_row, int64_t first, float *tile) {
    typename S::Float sums[height][vectors];
    for (int r = 0; r < height; ++r)
        for (int v = 0; v < vectors; ++v) sums[r][v] = S::zero();
    for (int64_t p = a.crow[block_row]; p < a.crow[block_row + 1]; ++p)
        block_product<S, vectors, height>(a.values + (p * a.block_height + first) * a.block_width, a.block_width, 1,
                                          a.block_width, panel.data + int64_t(a.col[p]) * a.block_width * panel.stride,
                                          panel.stride, sums);
    for (int r = 0; r < height; ++r)
        for (int v = 0; v < vectors; ++v) S::store(tile + (r * vectors + v) * S::width, sums[r][v]);
}

template <class S, int vectors, class Index>
void bsr_product(Sparse<Index> a, Panel panel, int64_t begin, int64_t end, Matrix out, int64_t first_column) {
    constexpr int height = S::registers / (2 * vectors);
    alignas(64) float tile[height * vectors * S::width];
    for (int64_t i = begin; i < end; ++i) {
        int64_t r = 0;
        for (; r + height <= a.block_height; r += height) {
            bsr_rows<S, vectors, height>(a, panel, i, r, tile);
            unpack<S>(tile, vectors, i * a.block_height + r, i * a.block_height + r + height, out, first_column);
        }
        for (; r < a.block_height; ++r) {
            bsr_rows<S, vectors, 1>(a, panel, i, r, tile);
            unpack<S>(tile, vectors, i * a.block_height + r, i * a.block_height + r + 1, out, first_column);
        }
    }
}

template <class S, int height, class Index>
void bsr_vector_rows(Sparse<Index> a, const float *x, int64_t block_row, int64_t first, float *out) {
    typename S::Float sums[height];
    float tails[height];
    for (int r = 0; r < height; ++r) {
        sums[r] = S::zero();
        tails[r] = 0.0f;
    }
    for (int64_t p = a.crow[block_row]; p < a.crow[block_row + 1]; ++p) {
        const float *block = a.values + (p * a.block_height + first) * a.block_width;
        const float *part = x + int64_t(a.col[p]) * a.block_width;
        int64_t k = 0;
        for (; k + S::width <= a.block_width; k += S::width) {
            const typename S::Float row = S::load(part + k);
            for (int r = 0; r < height; ++r)
                sums[r] = S::multiply_add(S::load(block + r * a.block_width + k), row, sums[r]);
        }
        for (; k < a.block_width; ++k)
            for (int r = 0; r < height; ++r) tails[r] += block[r * a.block_width + k] * part[k];
    }
    for (int r = 0; r < height; ++r) out[r] = S::sum(sums[r]) + tails[r];
}

template <class S, class Index>
void bsr_vector_product(Sparse<Index> a, const float *x, int64_t begin, int64_t end, float *out) {
    constexpr int height = S::registers / 2;
    for (int64_t i = begin; i < end; ++i) {
        float *rows = out + i * a.block_height;
        int64_t r = 0;
        for (; r + height <= a.block_height; r += height) bsr_vector_rows<S, height>(a, x, i, r, rows + r);
        for (; r + 4 <= a.block_height; r += 4) bsr_vector_rows<S, 4>(a, x, i, r, rows + r);
        for (; r < a.block_height; ++r) bsr_vector_rows<S, 1>(a, x, i, r, rows + r);
    }
}

template <class S, int vectors, int height>
void accumulate_columns(const float *block, int64_t block_height, int64_t block_width, const float *panel,
                        int64_t stride, float *accumulated) {
    typename S::Float sums[height][vectors];
    for (int r = 0; r < height; ++r)
        for (int v = 0; v < vectors; ++v) sums[r][v] = S::load(accumulated + r * stride + v * S::width);
    block_product<S, vectors, height>(block, 1, block_width, block_height, panel, stride, sums);
    for (int r = 0; r < height; ++r)
        for (int v = 0; v < vectors; ++v) S::store(accumulated + r * stride + v * S::width, sums[r][v]);
}

template <class S, int vectors, class Index>
void bsr_transposed_product(Sparse<Index> a, Panel panel, float *accumulated) {
    constexpr int height = S::registers / (2 * vectors);
    for (int64_t i = 0; i < a.block_rows; ++i) {
        const float *rows = panel.data + i * a.block_height * panel.stride;
        for (int64_t p = a.crow[i]; p < a.crow[i + 1]; ++p) {
            const float *block = a.values + p * a.block_height * a.block_width;
            float *sums = accumulated + int64_t(a.col[p]) * a.block_width * panel.stride;
            int64_t k = 0;
            for (; k + height <= a.block_width; k += height)
                accumulate_columns<S, vectors, height>(block + k, a.block_height, a.block_width, rows, panel.stride,
                                                       sums + k * panel.stride);
            for (; k < a.block_width; ++k)
                accumulate_columns<S, vectors, 1>(block + k, a.block_height, a.block_width, rows, panel.stride,
                                                  sums + k * panel.stride);
        }
    }
}

template <class S, int vectors, class Index>
void bsr_sampled_product(Sparse<Index> a, Panel left, Panel right, int64_t begin, int64_t end, float *values) {
    using Float = typename S::Float;
    for (int64_t i = begin; i < end; ++i)
        for (int64_t p = a.crow[i]; p < a.crow[i + 1]; ++p)
            for (int64_t r = 0; r < a.block_height; ++r) {
                const float *row = left.data + (i * a.block_height + r) * left.stride;
                float *block = values + (p * a.block_height + r) * a.block_width;
                for (int64_t k = 0; k < a.block_width; ++k) {
                    const float *other = right.data + (int64_t(a.col[p]) * a.block_width + k) * right.stride;
                    Float sum = S::zero();
                    for (int v = 0; v < vectors; ++v)
                        sum = S::multiply_add(S::load(row + v * S::width), S::load(other + v * S::width), sum);
                    block[k] += S::sum(sum);
                }
            }
}
