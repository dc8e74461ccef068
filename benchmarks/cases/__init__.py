"""What is measured: one file for each op, for the networks, and for each part of a user's day.

Every module here has its benchmark in `BENCHMARK`, or several in `BENCHMARKS`.
"""

from importlib import import_module
from pkgutil import iter_modules

from hdgan import ops
from hdgan.benchmarks.runner import Benchmark


def _found() -> dict[str, Benchmark]:
    """The benchmarks of this folder by name: those of the ops first, then in the order of their files."""
    names = sorted((module.name for module in iter_modules(__path__)), key=lambda name: (name not in ops.__all__, name))
    modules = [import_module(f"{__name__}.{name}") for name in names]
    lists = [getattr(module, "BENCHMARKS", None) or (module.BENCHMARK,) for module in modules]
    return {benchmark.name: benchmark for benchmarks in lists for benchmark in benchmarks}


BENCHMARKS = _found()
