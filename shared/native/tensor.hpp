// A torch tensor as an argument, through DLPack's C exchange interface.
//
// nb::ndarray calls the Python method __dlpack__ for every argument, which for a matrix-vector
// product costs as much as the product. The exchange interface (DLPack 1.3) fills a plain
// description of the tensor instead, in nanoseconds; torch offers it from 2.10 on. Like all of
// DLPack it says nothing of autograd: the caller hands over tensors outside the graph.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace tenfold {

// Borrowed from a Python object that outlives the call.
struct Tensor {
    nanobind::dlpack::dltensor view;

    int64_t dimensions() const { return view.ndim; }
    int64_t size(int dimension) const { return view.shape[dimension]; }
    int64_t stride(int dimension) const { return view.strides[dimension]; }

    template <class Element>
    bool holds() const {
        return view.dtype == nanobind::dtype<Element>();
    }

    template <class Element>
    Element *data() const {
        if (!holds<Element>()) throw nanobind::type_error("a tensor has another element type than this kernel takes");
        return reinterpret_cast<Element *>(static_cast<char *>(view.data) + view.byte_offset);
    }
};

}  // namespace tenfold

namespace nanobind::detail {

template <>
struct type_caster<tenfold::Tensor> {
    NB_TYPE_CASTER(tenfold::Tensor, const_name("torch.Tensor"))

    bool from_python(handle source, uint8_t, cleanup_list *) noexcept {
        const auto describe = description_function(source.type());
        if (!describe) return false;
        if (describe(source.ptr(), &value.view) != 0) {
            PyErr_Clear();
            return false;
        }
        return value.view.device.device_type == device::cpu::value;
    }

private:
    using Describe = int (*)(void *object, dlpack::dltensor *out);

    // The start of DLPack's DLPackExchangeAPI, whose layout its header promises for major version 1.
    struct ExchangeInterface {
        uint32_t major, minor;
        void *previous;
        void *allocate;
        void *export_managed;
        void *import_managed;
        Describe describe;
    };

    static Describe description_function(handle type) noexcept {
        static PyObject *known_type = nullptr;
        static Describe known_function = nullptr;
        if (type.ptr() == known_type) return known_function;

        const object capsule = steal(PyObject_GetAttrString(type.ptr(), "__dlpack_c_exchange_api__"));
        const auto *interface =
            capsule ? static_cast<ExchangeInterface *>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"))
                    : nullptr;
        if (!interface || interface->major != 1) {
            PyErr_Clear();
            return nullptr;
        }
        // The type is kept alive, so that its address is never another type's.
        known_type = type.inc_ref().ptr();
        known_function = interface->describe;
        return known_function;
    }
};

}  // namespace nanobind::detail
