// The Python module hdgan._C holds every kernel under its own name, with the suffix of its backend. Tensors are read by
// their Python methods, and None becomes a Tensor without data. The callers in hdgan/ops have checked dtype, shape,
// layout and device.
#include <pybind11/pybind11.h>

#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>

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

// Each argument is read by the type of its parameter.
template <typename T>
T read(py::handle source);

template <>
hd::Tensor read(py::handle source) {
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

template <>
hd::PadMode read(py::handle source) {
  const std::string name = py::str(source);
  if (name == "reflect") return hd::PadMode::reflect;
  if (name == "replicate") return hd::PadMode::replicate;
  if (name == "zero") return hd::PadMode::zero;
  throw py::value_error("hdgan._C: expected reflect, replicate or zero, got " + name);
}

template <>
int64_t read(py::handle source) {
  const int64_t number = PyLong_AsLongLong(source.ptr());
  if (number == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return number;
}

template <>
[[maybe_unused]] uintptr_t read(py::handle source) {  // a stream, of CUDA alone
  return static_cast<uintptr_t>(read<int64_t>(source));
}

template <>
int read(py::handle source) {
  const int64_t number = read<int64_t>(source);
  if (number != static_cast<int>(number)) throw py::value_error("hdgan._C: expected an int of 32 bits");
  return static_cast<int>(number);
}

template <>
float read(py::handle source) {
  const double number = PyFloat_AsDouble(source.ptr());
  if (number == -1. && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return static_cast<float>(number);
}

template <typename Result, typename... Parameters, size_t... I>
py::object call_with(Result (*kernel)(Parameters...), const py::args& arguments, std::index_sequence<I...>) {
  if (arguments.size() != sizeof...(Parameters))
    throw py::type_error("hdgan._C: expected " + std::to_string(sizeof...(Parameters)) + " arguments, got " +
                         std::to_string(arguments.size()));
  const auto call_unlocked = [&](const Parameters&... read) {
    const py::gil_scoped_release unlocked;
    return kernel(read...);
  };
  if constexpr (std::is_void_v<Result>) {
    call_unlocked(read<Parameters>(PyTuple_GET_ITEM(arguments.ptr(), I))...);
    return py::none();
  } else {
    return py::int_(call_unlocked(read<Parameters>(PyTuple_GET_ITEM(arguments.ptr(), I))...));
  }
}

template <typename Result, typename... Parameters>
py::object call_with(Result (*kernel)(Parameters...), const py::args& arguments) {
  return call_with(kernel, arguments, std::index_sequence_for<Parameters...>{});
}

// What Python calls: reads the arguments and calls a kernel without the interpreter's lock. It has one type for all
// kernels, because what pybind11 makes of every other type takes a tenth of a second to compile.
template <auto kKernel>
py::object call_kernel(const py::args& arguments) {
  return call_with(kKernel, arguments);
}

// Whether this processor has what the CPU kernels are compiled for. This file is compiled for any processor.
bool runs_cpu_kernels() {
#ifdef HD_AVX2
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
  return true;
#endif
}

}  // namespace

#define HD_BIND(name, function) m.def(name, call_kernel<function>);
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
  m.attr("cpu_isa") = "default";
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
