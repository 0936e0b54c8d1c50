// Copies between strided matrices and panels.

template <class S>
void pack(Matrix from, int64_t first_column, int vectors, int64_t begin, int64_t end, float *to) {
    const int64_t stride = int64_t(vectors) * S::width;
    const int64_t left = from.columns - first_column;
    const int64_t columns = left < stride ? left : stride;
    const float *source = from.data + first_column * from.column_stride;
    if (from.column_stride == 1) {
        for (int64_t i = begin; i < end; ++i) {
            const float *row = source + i * from.row_stride;
            for (int64_t j = 0; j < columns; ++j) to[i * stride + j] = row[j];
            for (int64_t j = columns; j < stride; ++j) to[i * stride + j] = 0.0f;
        }
        return;
    }
    // Whole tiles are transposed in registers; what is left over goes one element at a time.
    int64_t i = begin;
    if (from.row_stride == 1 && columns == stride) {
        for (; i + S::width <= end; i += S::width)
            for (int v = 0; v < vectors; ++v)
                S::transpose(source + i + v * S::width * from.column_stride, from.column_stride,
                             to + i * stride + v * S::width, stride);
    }
    for (; i < end; ++i) {
        const float *row = source + i * from.row_stride;
        for (int64_t j = 0; j < columns; ++j) to[i * stride + j] = row[j * from.column_stride];
        for (int64_t j = columns; j < stride; ++j) to[i * stride + j] = 0.0f;
    }
}

template <class S>
void unpack(const float *from, int vectors, int64_t begin, int64_t end, Matrix to, int64_t first_column) {
    const int64_t stride = int64_t(vectors) * S::width;
    const int64_t left = to.columns - first_column;
    const int64_t columns = left < stride ? left : stride;
    float *target = to.data + first_column * to.column_stride;
    if (to.column_stride == 1) {
        for (int64_t i = begin; i < end; ++i)
            for (int64_t j = 0; j < columns; ++j) target[i * to.row_stride + j] = from[(i - begin) * stride + j];
        return;
    }
    int64_t i = begin;
    if (to.row_stride == 1 && columns == stride) {
        for (; i + S::width <= end; i += S::width)
            for (int v = 0; v < vectors; ++v)
                S::transpose(from + (i - begin) * stride + v * S::width, stride,
                             target + i + v * S::width * to.column_stride, to.column_stride);
    }
    for (; i < end; ++i)
        for (int64_t j = 0; j < columns; ++j)
            target[i * to.row_stride + j * to.column_stride] = from[(i - begin) * stride + j];
}
