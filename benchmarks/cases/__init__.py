"""What is measured: one file for each op, for the networks, and for each part of a user's day.

Every module here has a `BENCHMARK`, or several `BENCHMARKS`.
"""

from importlib import import_module
from pkgutil import iter_modules

from hdgan.benchmarks.runner import Benchmark

_MODULES = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for module in _MODULES
    for benchmark in getattr(module, "BENCHMARKS", None) or (module.BENCHMARK,)
}
