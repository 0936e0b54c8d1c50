// Operators on graphs over threads, for any instruction set.
#pragma once

#include <cstring>

#include "parallel.hpp"
#include "types.hpp"

namespace tenfold {

inline const GraphKernels<int32_t> &graph_kernels(const InstructionSet &isa, int32_t) { return isa.graph32; }
inline const GraphKernels<int64_t> &graph_kernels(const InstructionSet &isa, int64_t) { return isa.graph64; }

// A contiguous matrix as rows that may be read past their ends.
template <class Element>
class PaddedRows {
public:
    PaddedRows(const Element *data, int64_t rows, int64_t columns) {
        const int64_t copied = columns ? std::min(rows, (overread + columns - 1) / columns) : 0;
        last.resize(copied * columns + overread);
        std::copy(data + (rows - copied) * columns, data + rows * columns, last.begin());
        view = {data, last.data(), rows - copied, columns};
    }

    operator Rows<Element>() const { return view; }

private:
    std::vector<Element> last;
    Rows<Element> view;
};

// Calls function(part, begin, end) for ranges of rows with about the same number of entries.
template <class Index, class Function>
void over_rows(Graph<Index> graph, int parts, Function &&function) {
    const auto bounds = balanced_bounds(graph.indptr, graph.rows, parts);
    in_parallel(parts, [&](int part) { function(part, bounds[part], bounds[part + 1]); });
}

template <class Index>
int parts_of(Graph<Index> graph, int64_t columns, int threads) {
    return parts_for((graph.entries + graph.rows) * columns, graph.rows, threads);
}

// Returns the largest magnitude of `out`.
template <class Index, class X>
float copy_u(const InstructionSet &isa, Graph<Index> graph, const X *x, int64_t nodes, int64_t columns, float scale,
             const float *row_scale, float *out, int threads) {
    const CopyU<Index, X> &kernel = graph_kernels(isa, Index());
    const PaddedRows<X> rows(x, nodes, columns);
    const int parts = parts_of(graph, columns, threads);
    std::vector<int32_t> largest(parts);
    over_rows(graph, parts, [&](int part, int64_t begin, int64_t end) {
        largest[part] = kernel.copy_u(graph, rows, begin, end, scale, row_scale, out);
    });
    float magnitude;
    std::memcpy(&magnitude, &*std::max_element(largest.begin(), largest.end()), sizeof magnitude);
    return magnitude;
}

template <class Index, class X, class E>
void u_mul_e(const InstructionSet &isa, Graph<Index> graph, const X *x, int64_t nodes, const E *e, Heads size,
             float scale, float *out, int threads) {
    const UMulE<Index, X, E> &kernel = graph_kernels(isa, Index());
    const int64_t columns = size.heads * size.depth;
    const PaddedRows<X> rows(x, nodes, columns);
    over_rows(graph, parts_of(graph, columns, threads), [&](int, int64_t begin, int64_t end) {
        kernel.u_mul_e(graph, rows, e, size, begin, end, scale, out);
    });
}

template <class Index, class X>
void u_dot_v(const InstructionSet &isa, Graph<Index> graph, const X *u, int64_t nodes, const X *v, Heads size,
             float scale, float *out, int threads) {
    const UDotV<Index, X> &kernel = graph_kernels(isa, Index());
    const int64_t columns = size.heads * size.depth;
    const PaddedRows<X> sources(u, nodes, columns), destinations(v, graph.rows, columns);
    over_rows(graph, parts_of(graph, columns, threads), [&](int, int64_t begin, int64_t end) {
        kernel.u_dot_v(graph, sources, destinations, size, begin, end, scale, out);
    });
}

template <class Index, class U, class V>
void u_add_v(const InstructionSet &isa, Graph<Index> graph, const U *u, const V *v, int64_t heads, float u_scale,
             float v_scale, float *out, int threads) {
    const UAddV<Index, U, V> &kernel = graph_kernels(isa, Index());
    over_rows(graph, parts_of(graph, heads, threads), [&](int, int64_t begin, int64_t end) {
        kernel.u_add_v(graph, u, v, heads, begin, end, u_scale, v_scale, out);
    });
}

template <class Index, class E>
void edge_sum(const InstructionSet &isa, Graph<Index> graph, const E *e, int64_t heads, float scale, float *out,
              int threads) {
    const EdgeSum<Index, E> &kernel = graph_kernels(isa, Index());
    over_rows(graph, parts_of(graph, heads, threads), [&](int, int64_t begin, int64_t end) {
        kernel.edge_sum(graph, e, heads, begin, end, scale, out);
    });
}

template <class Index>
void attention(const InstructionSet &isa, Graph<Index> graph, const float *u, const float *v, int64_t heads,
               float slope, float *out, int threads) {
    const EdgeAttention<Index> &kernel = graph_kernels(isa, Index());
    over_rows(graph, parts_of(graph, heads, threads), [&](int, int64_t begin, int64_t end) {
        kernel.forward(graph, u, v, heads, slope, begin, end, out);
    });
}

template <class Index>
void attention_backward(const InstructionSet &isa, Graph<Index> graph, const float *u, const float *v,
                        const float *attention, const float *gradient, int64_t heads, float slope, float *d_score,
                        float *d_v, int threads) {
    const EdgeAttention<Index> &kernel = graph_kernels(isa, Index());
    over_rows(graph, parts_of(graph, heads, threads), [&](int, int64_t begin, int64_t end) {
        kernel.backward(graph, u, v, attention, gradient, heads, slope, begin, end, d_score, d_v);
    });
}

}  // namespace tenfold
