// Sums of messages over in-edges, tile by tile of the features: a tile's sums stay in registers while
// the row's neighbours pass by.

// As many int8 as a 16-bit sum holds for certain.
constexpr int64_t bytes_in_short = 256;
// As many products of two int8 as a 32-bit sum holds for certain; beyond 131,071 it may not.
constexpr int64_t products_in_int = 65536;

template <class S, int vectors, class Index>
void add_bytes(Graph<Index> graph, Rows<int8_t> x, int64_t begin, int64_t end, int64_t first,
               typename S::Short (&sums)[vectors]) {
    constexpr int lanes = 2 * S::width;
    for (int v = 0; v < vectors; ++v) sums[v] = S::zero_shorts();
    for (int64_t p = begin; p < end; ++p) {
        prefetch(graph, x, p, first, vectors * lanes);
        const int8_t *row = row_of(x, graph.indices[p]) + first;
        for (int v = 0; v < vectors; ++v) sums[v] = S::add(sums[v], S::widen(row + v * lanes));
    }
}

template <class S, int vectors, class Index>
void sum_tile(Graph<Index> graph, Rows<int8_t> x, int64_t begin, int64_t end, int64_t first, float *tile) {
    constexpr int lanes = 2 * S::width;
    typename S::Short sums[vectors];
    if (end - begin <= bytes_in_short) {
        add_bytes<S, vectors>(graph, x, begin, end, first, sums);
        for (int v = 0; v < vectors; ++v) S::store_floats(tile + v * lanes, sums[v]);
        return;
    }
    int64_t totals[vectors * lanes] = {};
    int16_t part[vectors * lanes];
    for (int64_t p = begin; p < end; p += bytes_in_short) {
        add_bytes<S, vectors>(graph, x, p, end - p < bytes_in_short ? end : p + bytes_in_short, first, sums);
        for (int v = 0; v < vectors; ++v) S::store(part + v * lanes, sums[v]);
        for (int k = 0; k < vectors * lanes; ++k) totals[k] += part[k];
    }
    for (int k = 0; k < vectors * lanes; ++k) tile[k] = float(totals[k]);
}

template <class S, int vectors, class Index>
void sum_tile(Graph<Index> graph, Rows<float> x, int64_t begin, int64_t end, int64_t first, float *tile) {
    typename S::Float sums[vectors];
    for (int v = 0; v < vectors; ++v) sums[v] = S::zero();
    for (int64_t p = begin; p < end; ++p) {
        prefetch(graph, x, p, first, vectors * S::width);
        const float *row = row_of(x, graph.indices[p]) + first;
        for (int v = 0; v < vectors; ++v) sums[v] = S::add(sums[v], S::load(row + v * S::width));
    }
    for (int v = 0; v < vectors; ++v) S::store(tile + v * S::width, sums[v]);
}

template <class S, class Index, class X>
int32_t copy_u(Graph<Index> graph, Rows<X> x, int64_t begin, int64_t end, float scale, const float *row_scale,
               float *out) {
    constexpr int lanes = sizeof(X) == 1 ? 2 * S::width : S::width;
    alignas(64) float tile[8 * lanes];
    const bool streams = is_streamed<S>(out, graph.rows, x.stride);
    int32_t largest = 0;
    for (int64_t i = begin; i < end; ++i) {
        const float factor = row_scale ? scale * row_scale[i] : scale;
        for (int64_t first = 0; first < x.stride;) {
            const int64_t left = x.stride - first;
            const int vectors = tile_vectors(left, lanes);
            TENFOLD_BY_TILE(vectors, sum_tile, graph, x, graph.indptr[i], graph.indptr[i + 1], first, tile);
            const int64_t count = left < vectors * lanes ? left : vectors * lanes;
            float *const target = out + i * x.stride + first;
            largest = scale_tile(tile, count, factor, streams ? tile : target, largest);
            for (int64_t k = 0; streams && k < count; k += S::width) S::stream(target + k, S::load(tile + k));
            first += count;
        }
    }
    if (streams) S::end_stream();
    return largest;
}

// Weighted sums of `vectors` vectors of features, from the one at `first`, with the weights of head h.
template <class S, int vectors, class Index, class X, class E>
void weighted_tile(Graph<Index> graph, Rows<X> x, const E *e, int64_t heads, int64_t h, int64_t begin, int64_t end,
                   int64_t first, float *tile) {
    typename S::Float sums[vectors];
    for (int v = 0; v < vectors; ++v) sums[v] = S::zero();
    for (int64_t p = begin; p < end; ++p) {
        prefetch(graph, x, p, first, vectors * S::width);
        const X *row = row_of(x, graph.indices[p]) + first;
        const typename S::Float weight = S::broadcast(float(e[edge_of(graph, p) * heads + h]));
        for (int v = 0; v < vectors; ++v) sums[v] = S::multiply_add(S::load(row + v * S::width), weight, sums[v]);
    }
    for (int v = 0; v < vectors; ++v) S::store(tile + v * S::width, sums[v]);
}

// Two neighbours at a time: their features side by side against their two weights.
template <class S, int vectors, class Index>
void add_products(Graph<Index> graph, Rows<int8_t> x, const int8_t *e, int64_t heads, int64_t h, int64_t begin,
                  int64_t end, int64_t first, typename S::Int (&sums)[vectors]) {
    for (int v = 0; v < vectors; ++v) sums[v] = S::int_zero();
    for (int64_t p = begin; p < end; p += 2) {
        const bool pair = p + 1 < end;
        prefetch(graph, x, p, first, vectors * S::width);
        if (pair) prefetch(graph, x, p + 1, first, vectors * S::width);
        const int8_t *row0 = row_of(x, graph.indices[p]) + first;
        const int8_t *row1 = pair ? row_of(x, graph.indices[p + 1]) + first : row0;
        const typename S::Short weights = S::broadcast_pair(
            e[edge_of(graph, p) * heads + h], pair ? e[edge_of(graph, p + 1) * heads + h] : int8_t(0));
        for (int v = 0; v < vectors; ++v)
            sums[v] = S::dot_pairs(S::interleave(row0 + v * S::width, row1 + v * S::width), weights, sums[v]);
    }
}

template <class S, int vectors, class Index>
void weighted_tile(Graph<Index> graph, Rows<int8_t> x, const int8_t *e, int64_t heads, int64_t h, int64_t begin,
                   int64_t end, int64_t first, float *tile) {
    typename S::Int sums[vectors];
    if (end - begin <= products_in_int) {
        add_products<S, vectors>(graph, x, e, heads, h, begin, end, first, sums);
        for (int v = 0; v < vectors; ++v) S::store(tile + v * S::width, S::to_float(sums[v]));
        return;
    }
    int64_t totals[vectors * S::width] = {};
    int32_t part[vectors * S::width];
    for (int64_t p = begin; p < end; p += products_in_int) {
        const int64_t stop = end - p < products_in_int ? end : p + products_in_int;
        add_products<S, vectors>(graph, x, e, heads, h, p, stop, first, sums);
        for (int v = 0; v < vectors; ++v) S::store_int(part + v * S::width, sums[v]);
        for (int k = 0; k < vectors * S::width; ++k) totals[k] += part[k];
    }
    for (int k = 0; k < vectors * S::width; ++k) tile[k] = float(totals[k]);
}

template <class S, class Index, class X, class E>
void u_mul_e(Graph<Index> graph, Rows<X> x, const E *e, Heads size, int64_t begin, int64_t end, float scale,
             float *out) {
    alignas(64) float tile[8 * S::width];
    for (int64_t i = begin; i < end; ++i)
        for (int64_t h = 0; h < size.heads; ++h)
            for (int64_t first = h * size.depth; first < (h + 1) * size.depth;) {
                const int64_t left = (h + 1) * size.depth - first;
                const int vectors = tile_vectors(left, S::width);
                TENFOLD_BY_TILE(vectors, weighted_tile, graph, x, e, size.heads, h, graph.indptr[i],
                                graph.indptr[i + 1], first, tile);
                const int64_t count = left < vectors * S::width ? left : vectors * S::width;
                scale_tile(tile, count, scale, out + i * x.stride + first, 0);
                first += count;
            }
}
