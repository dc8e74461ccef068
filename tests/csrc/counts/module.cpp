// The second module of the library that counts: _counts, by which tests/csrc/counted.py reads the tallies of _C.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "counts.h"
#include "cuda_runtime.h"

namespace py = pybind11;
using counts::state;

namespace {

py::dict to_dict(const counts::Tally& tally) {
  py::dict values;
  values["instructions"] = tally.instructions;
  values["lanes"] = tally.lanes;
  values["bytes"] = tally.bytes;
  values["sectors"] = tally.sectors;
  values["unique"] = tally.unique;
  return values;
}

// What a kernel did to a tensor: (kernel, tensor, "load" | "store" | "atomic", tally).
py::list accesses() {
  const char* const kinds[] = {"load", "store", "atomic"};
  py::list rows;
  for (const counts::Row& row : state().traffic.rows())
    for (int kind = 0; kind < counts::kKinds; ++kind)
      if (row.kinds[kind].instructions > 0)
        rows.append(py::make_tuple(row.kernel, state().memory.regions()[row.region].name, kinds[kind],
                                   to_dict(row.kinds[kind])));
  return rows;
}

// Bytes that came from memory and went to it: (tensor, read, written).
py::list memory_traffic() {
  const std::vector<int64_t> read = state().traffic.read(), written = state().traffic.written();
  py::list rows;
  for (size_t i = 0; i < read.size(); ++i)
    rows.append(py::make_tuple(state().memory.regions()[i].name, read[i], written[i]));
  return rows;
}

}  // namespace

PYBIND11_MODULE(_counts, m) {
  m.def("set_device", [](int multiprocessors, int l2_bytes) {
    emulator::multiprocessors = multiprocessors;
    emulator::l2_bytes = l2_bytes;
  });
  m.def("watch_races", [](bool watch) { state().watch_races = watch; });
  // Begin to count for a call whose tensors are these: (name, address, bytes, bytes of an element,
  // whether stores to it are streamed).
  m.def("begin",
        [](const std::vector<std::tuple<std::string, uintptr_t, size_t, size_t, bool>>& tensors, int64_t cache_bytes) {
          emulator::machine.random.seed(0);  // the order of blocks, and so the counts, depend on no earlier call
          state().memory.clear();
          for (const auto& [name, address, bytes, item, streamed] : tensors)
            state().memory.add(name, address, bytes, item, streamed);
          state().traffic.reset(static_cast<size_t>(cache_bytes));
        });
  m.def("end", [] { state().memory.clear(); });
  m.def("accesses", accesses);
  m.def("memory_traffic", memory_traffic);
}
