// The Python module hdgan._C holds every kernel under its own name, with the suffix of its backend. Tensors are read by
// their Python methods, and None becomes a Tensor without data. The callers in hdgan/ops have checked dtype, shape,
// layout and device.
#include <pybind11/pybind11.h>

#include <string>
#include <unordered_map>

#include "kernels.h"

#if defined(HD_WITH_CUDA) && !defined(HD_EMULATED)  // builds for tests emulate CUDA, without a driver
extern "C" int cudaDriverGetVersion(int* version);  // bindings do without CUDA's headers
#define HD_DRIVER
#endif

namespace py = pybind11;

namespace {

const std::unordered_map<PyObject*, hd::DType>& dtypes() {
  static const auto* table = [] {
    const py::module_ torch = py::module_::import("torch");
    const std::pair<const char*, hd::DType> names[] = {
        {"float32", hd::DType::float32}, {"bfloat16", hd::DType::bfloat16}, {"float16", hd::DType::float16},
        {"int8", hd::DType::int8},       {"int16", hd::DType::int16},       {"int32", hd::DType::int32},
        {"int64", hd::DType::int64},     {"uint8", hd::DType::uint8},       {"uint16", hd::DType::uint16},
        {"uint32", hd::DType::uint32},   {"uint64", hd::DType::uint64}};
    auto* made = new std::unordered_map<PyObject*, hd::DType>;
    for (const auto& [name, dtype] : names) made->emplace(torch.attr(name).ptr(), dtype);
    return made;
  }();
  return *table;
}

PyObject* name_of(const char* text) {
  PyObject* name = PyUnicode_InternFromString(text);
  if (name == nullptr) throw py::error_already_set();
  return name;
}

py::object checked(PyObject* result) {
  if (result == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(result);
}

py::object attribute(py::handle source, PyObject* name) { return checked(PyObject_GetAttr(source.ptr(), name)); }

py::object call(py::handle source, PyObject* name) { return checked(PyObject_CallMethodNoArgs(source.ptr(), name)); }

// The integers of a tuple of at most 4 -> numbers.
void read_numbers(const py::object& source, int64_t (&numbers)[4]) {
  if (!PyTuple_Check(source.ptr())) throw py::type_error("hdgan._C: expected a tuple of sizes");
  const Py_ssize_t n = PyTuple_GET_SIZE(source.ptr());
  if (n > 4) throw py::value_error("hdgan._C: expected at most 4 dimensions");
  for (Py_ssize_t i = 0; i < n; ++i) {
    numbers[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(source.ptr(), i));
    if (numbers[i] == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  }
}

// What is read of every tensor. The names are made once, since making them takes longer than reading.
struct Names {
  PyObject* dtype = name_of("dtype");
  PyObject* shape = name_of("shape");
  PyObject* stride = name_of("stride");
  PyObject* data_ptr = name_of("data_ptr");
};

const Names& names() {
  static const Names made;
  return made;
}

bool is_tensor(py::handle source) { return PyObject_HasAttr(source.ptr(), names().data_ptr) != 0; }

hd::Tensor to_tensor(py::handle source) {
  hd::Tensor tensor;
  if (source.is_none()) return tensor;
  const py::object dtype = attribute(source, names().dtype);
  const auto known = dtypes().find(dtype.ptr());
  if (known == dtypes().end()) throw py::type_error("hdgan._C: no kernel reads " + std::string(py::str(dtype)));
  tensor.dtype = known->second;
  read_numbers(attribute(source, names().shape), tensor.shape);
  read_numbers(call(source, names().stride), tensor.stride);
  const py::object address = call(source, names().data_ptr);
  tensor.data = PyLong_AsVoidPtr(address.ptr());
  if (tensor.data == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return tensor;
}

}  // namespace

namespace pybind11::detail {

template <>
struct type_caster<hd::Tensor> {
  PYBIND11_TYPE_CASTER(hd::Tensor, const_name("torch.Tensor | None"));
  bool load(handle source, bool) {
    if (!source.is_none() && !is_tensor(source)) return false;
    value = to_tensor(source);
    return true;
  }
};

template <>
struct type_caster<hd::PadMode> {
  PYBIND11_TYPE_CASTER(hd::PadMode, const_name("str"));
  bool load(handle source, bool) {
    const std::string name = str(source);
    if (name != "reflect" && name != "zero" && name != "replicate") return false;
    value = name == "reflect" ? hd::PadMode::reflect : name == "zero" ? hd::PadMode::zero : hd::PadMode::replicate;
    return true;
  }
};

}  // namespace pybind11::detail

namespace {

// Whether this processor has what the CPU kernels are compiled for. This file is compiled for any processor.
bool runs_cpu_kernels() {
#ifdef HD_AVX2
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
  return true;
#endif
}

}  // namespace

#define HD_BIND(name, function) m.def(name, function, py::call_guard<py::gil_scoped_release>());
#ifdef HD_WITH_CUDA
#define HD_BIND_CUDA(name) HD_BIND(#name "_cuda", &hd::cuda::name)
#else
#define HD_BIND_CUDA(name)
#endif

// From here on, kernels.h binds what it lists.
#undef HD_KERNEL
#undef HD_CUDA_KERNEL
#undef HD_CUDA_SIZE
#define HD_KERNEL(name, ...) HD_BIND(#name "_cpu", &hd::cpu::name) HD_BIND_CUDA(name)
#define HD_CUDA_KERNEL(name, ...) HD_BIND_CUDA(name)
#define HD_CUDA_SIZE(name, ...) HD_BIND_CUDA(name)

PYBIND11_MODULE(_C, m) {
  dtypes();  // imports torch, which must not happen first in a call
  m.doc() = "Kernels of hdgan; called by hdgan.ops.";
#ifdef HD_AVX2
  m.attr("cpu_isa") = "avx2";
#else
  m.attr("cpu_isa") = "baseline";
#endif
  m.attr("cpu_supported") = runs_cpu_kernels();
#ifdef _OPENMP
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
#ifdef HD_WITH_CUDA
#ifdef HD_DRIVER
  m.def(
      "cuda_driver_version",
      [] {
        int version = 0;  // as it stays where there is no driver
        cudaDriverGetVersion(&version);
        return version;
      },
      "The CUDA that the driver supports, as 12080 for 12.8.");
#endif
  m.attr("cuda_archs") = HD_CUDA_ARCHS;
  m.attr("cuda_version") = HD_CUDA_VERSION;
#else
  m.attr("cuda_archs") = py::none();
  m.attr("cuda_version") = py::none();
#endif
#include "kernels.h"
}
