// The Python module: instruction sets of this machine as objects whose methods are the kernels.
// Shapes and index ranges were checked in Python; element types and devices are checked here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <optional>

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

// Without factors for the rows it does not matter where they end.
Floats floats(const Tensor &x, const Optional &row_scale, const Optional &positive) {
    int64_t columns = 1;
    for (int d = row_scale ? 1 : 0; d < x.dimensions(); ++d) columns *= x.size(d);
    const bool are_floats = positive && positive->holds<float>();
    return {x.data<float>(), columns, floats_or_null(row_scale), are_floats ? positive->data<float>() : nullptr,
            positive && !are_floats ? positive->data<int8_t>() : nullptr};
}

int64_t elements_of(const Tensor &x) {
    int64_t size = 1;
    for (int d = 0; d < x.dimensions(); ++d) size *= x.size(d);
    return size;
}

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
            "int8_matmul",
            [](const InstructionSet &isa, Tensor a, Tensor b, Tensor scale, Optional row_scale, Optional bias,
               bool relu, Tensor out, Tensor largest, int threads) {
                const Epilogue epilogue{*scale.data<float>(), floats_or_null(row_scale), floats_or_null(bias), relu};
                *largest.data<float>() =
                    int8_matmul(isa, int8_matrix(a), int8_matrix(b), epilogue, out.data<float>(), threads);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
            nb::arg(), nogil);

    module.def("instruction_sets", &instruction_sets, nb::rv_policy::reference,
               "Instruction sets that this machine runs, the fastest first.");
}
