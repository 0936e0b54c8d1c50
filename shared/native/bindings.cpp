// The Python module: instruction sets of this machine as objects whose methods are the kernels.
// Shapes and index ranges were checked in Python; element types and devices are checked here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <optional>

#include "graph.hpp"
#include "quantized.hpp"
#include "selection.hpp"
#include "sparse.hpp"
#include "tensor.hpp"

namespace nb = nanobind;

namespace tenfold {
namespace {

std::vector<const InstructionSet *> instruction_sets() {
    std::vector<const InstructionSet *> all{
#if defined(TENFOLD_AMX)
        &amx,
#endif
#if defined(TENFOLD_X86)
        &avx512_vnni, &avx512, &avx2,
#endif
        &portable};
    std::vector<const InstructionSet *> here;
    for (const InstructionSet *isa : all)
        if (isa->supported()) here.push_back(isa);
    return here;
}

Matrix matrix(const Tensor &dense) {
    return {dense.data<float>(), dense.size(0), dense.size(1), dense.stride(0), dense.stride(1)};
}

template <class Index>
Sparse<Index> sparse(const Tensor &crow, const Tensor &col, const Tensor &values) {
    const bool blocks = values.dimensions() == 3;
    return {crow.size(0) - 1,   blocks ? values.size(1) : 1, blocks ? values.size(2) : 1,
            crow.data<Index>(), col.data<Index>(),           values.data<float>()};
}

// Calls `function` with the sparse matrix in the index type that came.
template <class Function>
void with_sparse(const Tensor &crow, const Tensor &col, const Tensor &values, Function &&function) {
    if (crow.holds<int32_t>())
        function(sparse<int32_t>(crow, col, values));
    else
        function(sparse<int64_t>(crow, col, values));
}

Int8Matrix int8_matrix(const Tensor &matrix) {
    return {matrix.data<int8_t>(), matrix.size(0), matrix.size(1), matrix.stride(0), matrix.stride(1)};
}

using Optional = std::optional<Tensor>;

const float *floats_or_null(const Optional &tensor) { return tensor ? tensor->data<float>() : nullptr; }

template <class Element>
const Element *data_or_null(const Optional &tensor) {
    return tensor && tensor->holds<Element>() ? tensor->data<Element>() : nullptr;
}

// Without factors for the rows it does not matter where they end.
Floats floats(const Tensor &x, const Optional &row_scale, const Optional &positive) {
    int64_t columns = 1;
    for (int d = row_scale ? 1 : 0; d < x.dimensions(); ++d) columns *= x.size(d);
    return {x.data<float>(), columns, floats_or_null(row_scale), data_or_null<float>(positive),
            data_or_null<int8_t>(positive), data_or_null<uint8_t>(positive)};
}

int64_t elements_of(const Tensor &x) {
    int64_t size = 1;
    for (int d = 0; d < x.dimensions(); ++d) size *= x.size(d);
    return size;
}

template <class Index>
Graph<Index> graph(const Tensor &indptr, const Optional &indices, const Optional &edge_ids) {
    const Index *pointers = indptr.data<Index>();
    const int64_t rows = indptr.size(0) - 1;
    return {rows, int64_t(pointers[rows]), pointers, indices ? indices->data<Index>() : nullptr,
            edge_ids ? edge_ids->data<Index>() : nullptr};
}

// Calls `function` with the graph in the index type that came.
template <class Function>
void with_graph(const Tensor &indptr, const Optional &indices, const Optional &edge_ids, Function &&function) {
    if (indptr.holds<int32_t>())
        function(graph<int32_t>(indptr, indices, edge_ids));
    else
        function(graph<int64_t>(indptr, indices, edge_ids));
}

// Calls `function` with the elements in the type that came: int8_t if quantised, else float.
template <class Function>
void with_elements(const Tensor &tensor, Function &&function) {
    if (tensor.holds<int8_t>())
        function(tensor.data<int8_t>());
    else
        function(tensor.data<float>());
}

float number(const Optional &scale) { return scale ? *scale->data<float>() : 1.0f; }

Heads heads(const Tensor &features) { return {features.size(1), features.size(2)}; }

}  // namespace
}  // namespace tenfold

NB_MODULE(_native, module) {
    using namespace tenfold;
    // The instruction sets stay in a cache on the Python side until the interpreter is gone.
    nb::set_leak_warnings(false);
    const auto nogil = nb::call_guard<nb::gil_scoped_release>();

    nb::class_<InstructionSet>(module, "InstructionSet")
        .def_ro("name", &InstructionSet::name)
        .def(
            "product",
            [](const InstructionSet &isa, Tensor crow, Tensor col, Tensor values, Tensor dense, Tensor out,
               int threads) {
                with_sparse(crow, col, values, [&](auto a) { product(isa, a, matrix(dense), matrix(out), threads); });
            },
            nogil)
        .def(
            "transposed_product",
            [](const InstructionSet &isa, Tensor crow, Tensor col, Tensor values, Tensor dense, Tensor out,
               int threads) {
                with_sparse(crow, col, values,
                            [&](auto a) { transposed_product(isa, a, matrix(dense), matrix(out), threads); });
            },
            nogil)
        .def(
            "sampled_product",
            [](const InstructionSet &isa, Tensor crow, Tensor col, Tensor left, Tensor right, Tensor out,
               int threads) {
                with_sparse(crow, col, out, [&](auto a) {
                    sampled_product(isa, a, matrix(left), matrix(right), out.data<float>(), threads);
                });
            },
            nogil)
        .def(
            "topk_mask",
            [](const InstructionSet &isa, Tensor scores, int64_t keep, Tensor mask, int threads) {
                return topk_mask(isa, scores.data<float>(), scores.size(0), keep, mask.data<bool>(), threads);
            },
            nogil)
        .def(
            "group_norms",
            [](const InstructionSet &isa, Tensor groups, Tensor norms, int threads) {
                group_norms(isa, groups.data<float>(), groups.size(0), groups.size(1), norms.data<float>(), threads);
            },
            nogil)
        .def(
            "absmax",
            [](const InstructionSet &isa, Tensor x, Optional row_scale, Optional positive, Tensor out, int threads) {
                *out.data<float>() = absmax(isa, floats(x, row_scale, positive), elements_of(x), threads);
            },
            nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nogil)
        .def(
            "quantize",
            [](const InstructionSet &isa, Tensor x, Tensor scale, int levels, bool at_random, uint32_t key,
               uint32_t second_key, Optional row_scale, Optional positive, Tensor out, int threads) {
                const float inverse = 1.0f / *scale.data<float>();
                const Rounding rounding{std::isinf(inverse) ? 0.0f : inverse, levels, at_random, {key, second_key}};
                quantize(isa, floats(x, row_scale, positive), rounding, elements_of(x), out.data<int8_t>(), threads);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(),
            nb::arg(), nb::arg(), nogil)
        .def(
            "positive_bits",
            [](const InstructionSet &isa, Tensor x, Tensor bits, int threads) {
                positive_bits(isa, x.data<float>(), elements_of(x), bits.data<uint8_t>(), threads);
            },
            nogil)
        .def(
            "int8_matmul",
            [](const InstructionSet &isa, Tensor a, Tensor b, Tensor scale, Optional row_scale, Optional bias,
               bool relu, Optional positive, Tensor out, Tensor largest, int threads) {
                const Epilogue epilogue{*scale.data<float>(), floats_or_null(row_scale), floats_or_null(bias), relu,
                                        positive ? positive->data<uint8_t>() : nullptr};
                *largest.data<float>() =
                    int8_matmul(isa, int8_matrix(a), int8_matrix(b), epilogue, out.data<float>(), threads);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg().none(),
            nb::arg(), nb::arg(), nb::arg(), nogil)
        .def(
            "spmm_copy_u",
            [](const InstructionSet &isa, Tensor indptr, Tensor indices, Tensor x, Optional scale,
               Optional row_scale, Tensor out, Tensor absmax, int threads) {
                with_graph(indptr, indices, {}, [&](auto graph) {
                    with_elements(x, [&](auto *elements) {
                        *absmax.data<float>() =
                            copy_u(isa, graph, elements, x.size(0), x.size(1), number(scale),
                                   floats_or_null(row_scale), out.data<float>(), threads);
                    });
                });
            },
            nogil)
        .def(
            "spmm_u_mul_e",
            [](const InstructionSet &isa, Tensor indptr, Tensor indices, Tensor x, Tensor e, Optional edge_ids,
               Optional scale, Tensor out, int threads) {
                with_graph(indptr, indices, edge_ids, [&](auto graph) {
                    with_elements(x, [&](auto *features) {
                        with_elements(e, [&](auto *weights) {
                            u_mul_e(isa, graph, features, x.size(0), weights, heads(x), number(scale),
                                    out.data<float>(), threads);
                        });
                    });
                });
            },
            nogil)
        .def(
            "sddmm_u_dot_v",
            [](const InstructionSet &isa, Tensor indptr, Tensor indices, Tensor u, Tensor v, Optional edge_ids,
               Optional scale, Tensor out, int threads) {
                with_graph(indptr, indices, edge_ids, [&](auto graph) {
                    with_elements(u, [&](auto *sources) {
                        u_dot_v(isa, graph, sources, u.size(0), v.data<std::remove_pointer_t<decltype(sources)>>(),
                                heads(u), number(scale), out.data<float>(), threads);
                    });
                });
            },
            nogil)
        .def(
            "sddmm_u_add_v",
            [](const InstructionSet &isa, Tensor indptr, Tensor indices, Tensor u, Tensor v, Optional edge_ids,
               Optional u_scale, Optional v_scale, Tensor out, int threads) {
                with_graph(indptr, indices, edge_ids, [&](auto graph) {
                    with_elements(u, [&](auto *sources) {
                        with_elements(v, [&](auto *destinations) {
                            u_add_v(isa, graph, sources, destinations, u.size(1), number(u_scale), number(v_scale),
                                    out.data<float>(), threads);
                        });
                    });
                });
            },
            nogil)
        .def(
            "edge_sum",
            [](const InstructionSet &isa, Tensor indptr, Tensor e, Optional edge_ids, Optional scale, Tensor out,
               int threads) {
                with_graph(indptr, {}, edge_ids, [&](auto graph) {
                    with_elements(e, [&](auto *values) {
                        edge_sum(isa, graph, values, e.size(1), number(scale), out.data<float>(), threads);
                    });
                });
            },
            nogil)
        .def(
            "edge_attention",
            [](const InstructionSet &isa, Tensor indptr, Tensor indices, Tensor u, Tensor v, float slope, Tensor out,
               int threads) {
                with_graph(indptr, indices, {}, [&](auto graph) {
                    attention(isa, graph, u.data<float>(), v.data<float>(), u.size(1), slope, out.data<float>(),
                              threads);
                });
            },
            nogil)
        .def(
            "edge_attention_backward",
            [](const InstructionSet &isa, Tensor indptr, Tensor indices, Tensor u, Tensor v, Tensor attention,
               Tensor gradient, float slope, Tensor d_score, Tensor d_v, int threads) {
                with_graph(indptr, indices, {}, [&](auto graph) {
                    attention_backward(isa, graph, u.data<float>(), v.data<float>(), attention.data<float>(),
                                       gradient.data<float>(), u.size(1), slope, d_score.data<float>(),
                                       d_v.data<float>(), threads);
                });
            },
            nogil);

    module.def("instruction_sets", &instruction_sets, nb::rv_policy::reference,
               "Instruction sets that this machine runs, the fastest first.");
}
