// Fills the table of one instruction set. Included by each <name>/<name>.cpp inside an anonymous
// namespace, after its `Simd`, so that every function below has internal linkage; see the README.

#include "magnitude.hpp"
#include "stream.hpp"
#include "panel.hpp"
#include "csr.hpp"
#include "bsr.hpp"
#include "selection.hpp"
#include "graph.hpp"
#include "spmm.hpp"
#include "sddmm.hpp"
#include "edges.hpp"
#include "quantize.hpp"
#include "int8_matmul.hpp"

// Calls f<vectors> for the number of vectors a panel is wide: 1, 2 or 4.
#define TENFOLD_BY_VECTORS(vectors, function, ...)          \
    switch (vectors) {                                      \
        case 1: return function<Simd, 1>(__VA_ARGS__);      \
        case 2: return function<Simd, 2>(__VA_ARGS__);      \
        default: return function<Simd, 4>(__VA_ARGS__);     \
    }

template <class Index>
bool is_csr(Sparse<Index> a) {
    return a.block_height == 1 && a.block_width == 1;
}

template <class Index>
void product(Sparse<Index> a, Panel panel, int64_t begin, int64_t end, Matrix out, int64_t first_column) {
    if (is_csr(a)) TENFOLD_BY_VECTORS(panel.vectors, csr_product, a, panel, begin, end, out, first_column);
    TENFOLD_BY_VECTORS(panel.vectors, bsr_product, a, panel, begin, end, out, first_column);
}

template <class Index>
void vector_product(Sparse<Index> a, const float *x, int64_t begin, int64_t end, float *out) {
    if (is_csr(a)) return csr_vector_product<Simd>(a, x, begin, end, out);
    bsr_vector_product<Simd>(a, x, begin, end, out);
}

template <class Index>
void transposed_product(Sparse<Index> a, Panel panel, float *accumulated) {
    if (is_csr(a)) TENFOLD_BY_VECTORS(panel.vectors, csr_transposed_product, a, panel, accumulated);
    TENFOLD_BY_VECTORS(panel.vectors, bsr_transposed_product, a, panel, accumulated);
}

template <class Index>
void sampled_product(Sparse<Index> a, Panel left, Panel right, int64_t begin, int64_t end, float *values) {
    if (is_csr(a)) TENFOLD_BY_VECTORS(left.vectors, csr_sampled_product, a, left, right, begin, end, values);
    TENFOLD_BY_VECTORS(left.vectors, bsr_sampled_product, a, left, right, begin, end, values);
}

template <class Index>
constexpr SparseKernels<Index> sparse_kernels() {
    return {product<Index>, vector_product<Index>, transposed_product<Index>, sampled_product<Index>};
}

template <class Index>
constexpr GraphKernels<Index> graph_kernels() {
    return {{copy_u<Simd, Index, int8_t>},
            {copy_u<Simd, Index, float>},
            {u_mul_e<Simd, Index, int8_t, int8_t>},
            {u_mul_e<Simd, Index, int8_t, float>},
            {u_mul_e<Simd, Index, float, int8_t>},
            {u_mul_e<Simd, Index, float, float>},
            {u_dot_v<Simd, Index, int8_t>},
            {u_dot_v<Simd, Index, float>},
            {u_add_v<Index, int8_t, int8_t>},
            {u_add_v<Index, int8_t, float>},
            {u_add_v<Index, float, int8_t>},
            {u_add_v<Index, float, float>},
            {edge_sum<Index, int8_t>},
            {edge_sum<Index, float>},
            {attention<Index>, attention_backward<Index>}};
}

constexpr InstructionSet instruction_set(const char *name, bool (*supported)()) {
    return {name,
            supported,
            Simd::width,
            pack<Simd>,
            unpack<Simd>,
            sparse_kernels<int32_t>(),
            sparse_kernels<int64_t>(),
            graph_kernels<int32_t>(),
            graph_kernels<int64_t>(),
            count_digits,
            count_equal,
            keep_above,
            group_norms,
            absmax,
            quantize,
            positive_bits,
            int8_kernels<Simd>()};
}
