// Inner products of the features of edges' ends.

// Four sources against one destination: every vector of the destination is loaded once for all of them.
constexpr int at_once = 4;

template <class S>
void dots(const int8_t *const (&u)[at_once], const int8_t *v, int64_t depth, float scale, float (&out)[at_once]) {
    constexpr int lanes = 2 * S::width;
    int64_t totals[at_once] = {};
    for (int64_t begin = 0; begin < depth; begin += products_in_int) {
        const int64_t end = depth - begin < products_in_int ? depth : begin + products_in_int;
        typename S::Int sums[at_once];
        for (int r = 0; r < at_once; ++r) sums[r] = S::int_zero();
        int64_t k = begin;
        for (; k + lanes <= end; k += lanes) {
            const typename S::Short common = S::widen(v + k);
            for (int r = 0; r < at_once; ++r) sums[r] = S::dot_pairs(S::widen(u[r] + k), common, sums[r]);
        }
        if (k < end) {
            const typename S::Short common = S::first_of(S::widen(v + k), int(end - k));
            for (int r = 0; r < at_once; ++r) sums[r] = S::dot_pairs(S::widen(u[r] + k), common, sums[r]);
        }
        int32_t parts[at_once];
        S::sum_each(sums, parts);
        for (int r = 0; r < at_once; ++r) totals[r] += parts[r];
    }
    for (int r = 0; r < at_once; ++r) out[r] = float(totals[r]) * scale;
}

template <class S>
void dots(const float *const (&u)[at_once], const float *v, int64_t depth, float scale, float (&out)[at_once]) {
    typename S::Float sums[at_once];
    for (int r = 0; r < at_once; ++r) sums[r] = S::zero();
    int64_t k = 0;
    for (; k + S::width <= depth; k += S::width) {
        const typename S::Float common = S::load(v + k);
        for (int r = 0; r < at_once; ++r) sums[r] = S::multiply_add(S::load(u[r] + k), common, sums[r]);
    }
    for (int r = 0; r < at_once; ++r) {
        // What lies behind a row may be NaN, which no product with zero would remove.
        float rest = 0.0f;
        for (int64_t j = k; j < depth; ++j) rest += u[r][j] * v[j];
        out[r] = (S::sum(sums[r]) + rest) * scale;
    }
}

template <class S, class Index, class X>
void u_dot_v(Graph<Index> graph, Rows<X> u, Rows<X> v, Heads size, int64_t begin, int64_t end, float scale,
             float *out) {
    for (int64_t i = begin; i < end; ++i) {
        const X *common = row_of(v, i);
        const int64_t last = graph.indptr[i + 1];
        for (int64_t p = graph.indptr[i]; p < last; p += at_once) {
            const X *rows[at_once];
            float *targets[at_once];
            const int count = last - p < at_once ? int(last - p) : at_once;
            // A group that is not full repeats its last member, whose result is written again.
            for (int r = 0; r < at_once; ++r) {
                const int64_t entry = p + (r < count ? r : count - 1);
                prefetch(graph, u, entry, 0, u.stride);
                rows[r] = row_of(u, graph.indices[entry]);
                targets[r] = out + edge_of(graph, entry) * size.heads;
            }
            for (int64_t h = 0; h < size.heads; ++h) {
                float results[at_once];
                dots<S>(rows, common + h * size.depth, size.depth, scale, results);
                for (int r = 0; r < at_once; ++r) {
                    targets[r][h] = results[r];
                    rows[r] += size.depth;
                }
            }
        }
    }
}
