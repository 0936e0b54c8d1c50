// CSR kernels over panels: one row of A against the panel's rows that its columns name.

// Two sets of sums, for even and odd entries, hide the latency of the multiply-add.
template <class S, int vectors, class Index>
void csr_row(const Index *col, const float *values, int64_t entries, const float *panel, int64_t stride, float *out) {
    using Float = typename S::Float;
    Float even[vectors], odd[vectors];
    for (int v = 0; v < vectors; ++v) even[v] = odd[v] = S::zero();
    int64_t p = 0;
    for (; p + 2 <= entries; p += 2) {
        const float *row0 = panel + int64_t(col[p]) * stride;
        const float *row1 = panel + int64_t(col[p + 1]) * stride;
        const Float value0 = S::broadcast(values[p]);
        const Float value1 = S::broadcast(values[p + 1]);
        for (int v = 0; v < vectors; ++v) even[v] = S::multiply_add(value0, S::load(row0 + v * S::width), even[v]);
        for (int v = 0; v < vectors; ++v) odd[v] = S::multiply_add(value1, S::load(row1 + v * S::width), odd[v]);
    }
    if (p < entries) {
        const float *row = panel + int64_t(col[p]) * stride;
        const Float value = S::broadcast(values[p]);
        for (int v = 0; v < vectors; ++v) even[v] = S::multiply_add(value, S::load(row + v * S::width), even[v]);
    }
    for (int v = 0; v < vectors; ++v) S::store(out + v * S::width, S::add(even[v], odd[v]));
}

template <class S, int vectors, class Index>
void csr_product(Sparse<Index> a, Panel panel, int64_t begin, int64_t end, Matrix out, int64_t first_column) {
    // As many rows as a vector is wide, so that unpacking can transpose whole tiles.
    alignas(64) float tile[S::width * vectors * S::width];
    for (int64_t first = begin; first < end; first += S::width) {
        const int64_t last = first + S::width < end ? first + S::width : end;
        for (int64_t i = first; i < last; ++i)
            csr_row<S, vectors>(a.col + a.crow[i], a.values + a.crow[i], a.crow[i + 1] - a.crow[i], panel.data,
                                panel.stride, tile + (i - first) * vectors * S::width);
        unpack<S>(tile, vectors, first, last, out, first_column);
    }
}

template <class S, class Index>
void csr_vector_product(Sparse<Index> a, const float *x, int64_t begin, int64_t end, float *out) {
    for (int64_t i = begin; i < end; ++i) {
        int64_t p = a.crow[i];
        const int64_t last = a.crow[i + 1];
        typename S::Float even = S::zero(), odd = S::zero();
        for (; p + 2 * S::width <= last; p += 2 * S::width) {
            even = S::multiply_add(S::load(a.values + p), S::gather(x, a.col + p), even);
            odd = S::multiply_add(S::load(a.values + p + S::width), S::gather(x, a.col + p + S::width), odd);
        }
        if (p + S::width <= last) {
            even = S::multiply_add(S::load(a.values + p), S::gather(x, a.col + p), even);
            p += S::width;
        }
        float tail = 0.0f;
        for (; p < last; ++p) tail += a.values[p] * x[a.col[p]];
        out[i] = S::sum(S::add(even, odd)) + tail;
    }
}

template <class S, int vectors, class Index>
void csr_transposed_product(Sparse<Index> a, Panel panel, float *accumulated) {
    using Float = typename S::Float;
    for (int64_t i = 0; i < a.block_rows; ++i) {
        Float row[vectors];
        for (int v = 0; v < vectors; ++v) row[v] = S::load(panel.data + i * panel.stride + v * S::width);
        for (int64_t p = a.crow[i]; p < a.crow[i + 1]; ++p) {
            float *sums = accumulated + int64_t(a.col[p]) * panel.stride;
            const Float value = S::broadcast(a.values[p]);
            for (int v = 0; v < vectors; ++v)
                S::store(sums + v * S::width, S::multiply_add(value, row[v], S::load(sums + v * S::width)));
        }
    }
}

template <class S, int vectors, class Index>
void csr_sampled_product(Sparse<Index> a, Panel left, Panel right, int64_t begin, int64_t end, float *values) {
    using Float = typename S::Float;
    for (int64_t i = begin; i < end; ++i) {
        Float row[vectors];
        for (int v = 0; v < vectors; ++v) row[v] = S::load(left.data + i * left.stride + v * S::width);
        for (int64_t p = a.crow[i]; p < a.crow[i + 1]; ++p) {
            const float *other = right.data + int64_t(a.col[p]) * right.stride;
            Float sum = S::zero();
            for (int v = 0; v < vectors; ++v) sum = S::multiply_add(row[v], S::load(other + v * S::width), sum);
            values[p] += S::sum(sum);
        }
    }
}
