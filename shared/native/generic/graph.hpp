// What the operators on graphs share.

template <class Index>
int64_t edge_of(Graph<Index> graph, int64_t entry) {
    return graph.edge_ids ? int64_t(graph.edge_ids[entry]) : entry;
}

template <class Element, class Index>
const Element *row_of(Rows<Element> x, Index row) {
    return row < x.first_of_last ? x.data + row * x.stride : x.last + (row - x.first_of_last) * x.stride;
}

// Rows lie anywhere in memory: those of this many entries later are asked for now.
constexpr int64_t ahead = 8;

template <class Index>
int64_t entry_ahead(Graph<Index> graph, int64_t entry) {
    return entry + ahead < graph.entries ? entry + ahead : graph.entries - 1;
}

template <class Element, class Index>
void prefetch(Graph<Index> graph, Rows<Element> x, int64_t entry, int64_t first, int64_t count) {
    constexpr int64_t line = 64 / sizeof(Element);
    const Element *row = x.data + graph.indices[entry_ahead(graph, entry)] * x.stride + first;
    for (int64_t k = 0; k < count; k += line) __builtin_prefetch(row + k);
}

// How many vectors the next tile is wide: 8, 4, 2 or 1. Only the last vector of a row is not full.
inline int tile_vectors(int64_t left, int64_t lanes) {
    const int64_t vectors = (left + lanes - 1) / lanes;
    return vectors >= 8 ? 8 : vectors >= 4 ? 4 : vectors >= 2 ? 2 : 1;
}

// Calls function<vectors> for the number of vectors of a tile.
#define TENFOLD_BY_TILE(vectors, function, ...)           \
    switch (vectors) {                                    \
        case 1: function<S, 1>(__VA_ARGS__); break;       \
        case 2: function<S, 2>(__VA_ARGS__); break;       \
        case 4: function<S, 4>(__VA_ARGS__); break;       \
        default: function<S, 8>(__VA_ARGS__); break;      \
    }

// out = factor * tile; returns the key of the largest magnitude met so far.
inline int32_t scale_tile(const float *tile, int64_t count, float factor, float *out, int32_t largest) {
    for (int64_t k = 0; k < count; ++k) {
        out[k] = tile[k] * factor;
        const int32_t key = magnitude_key(out[k]);
        largest = key > largest ? key : largest;
    }
    return largest;
}
