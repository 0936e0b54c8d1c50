// The Python module: instruction sets of this machine as objects whose methods are the kernels.
// Shapes and index ranges were checked in Python; element types and devices are checked here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include "selection.hpp"
#include "sparse.hpp"
#include "tensor.hpp"

namespace nb = nanobind;

namespace tenfold {
namespace {

std::vector<const InstructionSet *> instruction_sets() {
    std::vector<const InstructionSet *> all{
#if defined(TENFOLD_X86)
        &avx512, &avx2,
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
            nogil);

    module.def("instruction_sets", &instruction_sets, nb::rv_policy::reference,
               "Instruction sets that this machine runs, the fastest first.");
}
