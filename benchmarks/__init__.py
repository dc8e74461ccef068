"""Speed and memory of hdgan, imported as hdgan.benchmarks: see `hdgan bench --help` and docs/benchmarks.md."""
