#!/usr/bin/env bash
# On a machine with a GPU: build, correctness, memory checks, benchmarks. Needs torch, triton, pybind11, ninja, pytest and
# pytest-benchmark installed; writes what it measures to the folder that is its argument.
set -euo pipefail
out=$(mkdir -p "${1:-gpu-results}" && cd "${1:-gpu-results}" && pwd)
cd "$(dirname "$0")/.."

HDGAN_BUILD=cuda pip install --no-build-isolation --no-deps -e . 2>&1 | tail -1
hdgan info | tee "$out/info.txt"

python -m pytest -m gpu 2>&1 | tee "$out/tests.txt"

# memcheck finds accesses out of bounds, racecheck missing barriers.
if command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 9 \
      python -m pytest -q -m gpu tests/ops -k "cuda and near_truth and (odd or split or reflect)" 2>&1 |
      tee "$out/$tool.txt" | tail -3
  done
fi

for dtype in bfloat16 float32; do
  python -m pytest benchmarks --device cuda --dtype "$dtype" \
    --benchmark-json "$out/$dtype.json" --benchmark-columns=median,iqr 2>&1 | tee "$out/$dtype.txt" | grep -A60 "speed-up"
done
