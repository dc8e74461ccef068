#!/usr/bin/env bash
# On a machine with a GPU, within eight minutes: build, correctness, memory checks, the suite, its report, profiles.
# Needs what `pip install -e .[test]` needs, installed already; no network. Writes five files to the folder that is its
# argument: log.txt, results.tar.gz (rows, pages and plots), G2.json.gz, step.json.gz, kernels.csv.
set -euo pipefail
out=$(mkdir -p "${1:-gpu-results}" && cd "${1:-gpu-results}" && pwd)
cd "$(dirname "$0")/.."
exec > >(tee "$out/log.txt") 2>&1
status=0
step() { # what, seconds, command…: a step that fails or takes too long is told, and the others go on
  local left=$((480 - SECONDS))
  if ((left < 5)); then
    echo "== $1 LEFT OUT: eight minutes are over"
    status=1
    return
  fi
  echo "== $1, after $SECONDS s"
  timeout "$(($2 < left ? $2 : left))" "${@:3}" || { echo "== $1 FAILED: status $?"; status=1; }
}

step "build" 120 env HDGAN_BUILD=cuda python setup.py -q build_ext --inplace
python -m hdgan info
step "correctness" 120 python -m pytest -q -m gpu
if command -v compute-sanitizer > /dev/null; then
  # memcheck finds accesses out of bounds, racecheck missing barriers.
  for tool in memcheck racecheck; do
    step "$tool" 40 compute-sanitizer --tool "$tool" --error-exitcode 9 \
      python -m pytest -q -m gpu tests/ops -k "cuda and near_truth and odd"
  done
fi

# The ops first, then what they are for; torch.compile's long search only where there is time left.
common=(--device cuda --dtype bfloat16 --seconds 0.1)
ops=(instance_norm_act instance_mean instance_index avg_pyramid encode_labels)
step "ops" 70 python -m hdgan bench "${ops[@]}" "${common[@]}" --minutes 1 --contestants eager cuda triton scatter
step "networks and step" 90 python -m hdgan bench residual_block G1 G2 D E step "${common[@]}" --minutes 1.2 \
  --contestants eager cuda triton
step "torch.compile" 70 python -m hdgan bench instance_norm_act avg_pyramid G1 G2 "${common[@]}" --minutes 0.8 \
  --contestants eager compile max-autotune cuda
step "data and startup" 30 python -m hdgan bench data_loading startup --device cuda --seconds 0.1
step "report" 30 python -m hdgan bench report
step "packing" 10 tar czf "$out/results.tar.gz" benchmarks/results README.md docs/benchmarks.md docs/benchmarks

for work in G2 step; do
  step "profile of $work" 40 python -m hdgan bench profile "$work" cuda --only 2048 --device cuda --dtype bfloat16 \
    --rounds 1 --out "$out/$work.json.gz"
done
if command -v ncu > /dev/null; then
  metrics=gpu__time_duration.sum,dram__bytes.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed
  metrics+=,sm__warps_active.avg.pct_of_peak_sustained_active,l1tex__data_bank_conflicts_pipe_lsu.sum
  logs=$(mktemp -d)
  for op in "${ops[@]}"; do
    step "ncu of $op" 30 ncu --clock-control none --kernel-name "regex:$op" --launch-count 8 --csv --metrics "$metrics" \
      --log-file "$logs/$op.csv" \
      python -m hdgan bench profile "$op" cuda --device cuda --dtype bfloat16 --rounds 1
  done
  find "$logs" -name '*.csv' -exec cat {} + > "$out/kernels.csv"  # empty where no time was left
fi
exit "$status"
