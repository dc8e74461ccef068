#!/usr/bin/env bash
# On a machine with a GPU: run_gpu.sh OUT [check] [speed] [compile] [profile], all four if none is named, each within
# nine minutes: correctness and memory checks; the suite; its rows of torch.compile; traces and counters of kernels.
# Needs torch and what pyproject.toml names as `test`, installed already; no network. The first part that runs builds
# the extension, for this GPU alone. Leaves in OUT: a log of each part, results.tar.gz (rows, pages and plots),
# G2.json.gz, step.json.gz, kernels.csv.
set -euo pipefail
out=$(mkdir -p "${1:-gpu-results}" && cd "${1:-gpu-results}" && pwd)
shift || true
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
status=0

step() { # what, seconds, command…: a step that fails or takes too long is told, and the others go on
  local left=$((540 - SECONDS))
  if ((left < 5)); then
    echo "== $1 LEFT OUT: nine minutes are over"
    status=1
    return
  fi
  echo "== $1, after $SECONDS s"
  # As Ctrl-C: pytest tells what failed so far, and the suite writes its rows.
  timeout -s INT -k 10 "$(($2 < left ? $2 : left))" "${@:3}" || { echo "== $1 FAILED: status $?"; status=1; }
}

build() {
  [[ -n ${built:-} ]] && return
  built=1
  local arch
  arch=$(python -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')  # an error where there is none
  step "build for $arch" 200 env HDGAN_BUILD=cuda TORCH_CUDA_ARCH_LIST="$arch" python setup.py -q build_ext --inplace
  step "info" 30 python -m hdgan info
}

check() {
  build
  # By many processes, if pytest-xdist is there: most of the time goes into compiling Triton's kernels.
  local many=() tests=(tests/ops tests/models/test_backends.py tests/test_gpu.py tests/training/test_prefetch.py
    tests/training/test_cuda_graph.py)
  python -c 'import xdist' 2> /dev/null && many=(-n "$(($(nproc) < 12 ? $(nproc) : 12))")
  step "correctness: CUDA and networks" 150 python -m pytest -q -m gpu "${many[@]}" "${tests[@]}" \
    -k "not triton and not 31_elements"
  step "correctness: Triton" 240 python -m pytest -q -m gpu "${many[@]}" "${tests[@]}" -k "triton and not 31_elements"
  step "correctness: tensors of many elements" 60 python -m pytest -q -m gpu tests/ops -k 31_elements
  command -v compute-sanitizer > /dev/null || return 0
  # memcheck finds accesses out of bounds, where each tensor has memory of its own; racecheck missing barriers.
  local tool chosen
  chosen="without_deterministic or equals_reference or planes_equal"
  chosen+=" or (near_truth and (avg_pyramid or odd or split))"
  for tool in memcheck racecheck; do
    step "$tool" 90 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" --error-exitcode 9 \
      python -m pytest -q -m gpu tests/ops -k "cuda and ($chosen)"
  done
}

bench() { # seconds, benchmarks…, options: an illegal access in one call spoils none of the others
  step "bench ${*:2}" "$1" python -m hdgan bench "${@:2}" --device cuda --dtype bfloat16 --seconds 0.1 --publish
}

pack() {
  step "report" 30 python -m hdgan bench report --publish
  tar czf "$out/results.tar.gz" benchmarks/results README.md docs/benchmarks.md docs/benchmarks
}

speed() {
  build
  bench 100 step --implementations eager cuda triton
  bench 40 instance_mean
  bench 25 instance_index
  bench 25 encode_labels
  bench 60 label_conv2d --implementations eager cuda triton
  bench 60 avg_pyramid --implementations eager cuda triton
  bench 110 instance_norm_act --implementations eager cuda triton
  bench 100 G1 G2 D E --implementations eager cuda triton
  bench 40 residual_block --implementations eager cuda triton
  bench 30 data_loading startup
  pack
}

compile() {
  build
  bench 150 G1 --layout NHWC --implementations eager compile cuda
  bench 120 instance_norm_act --only block --layout NHWC --implementations eager compile max-autotune cuda
  bench 60 avg_pyramid --layout NHWC --implementations eager compile cuda
  bench 150 G2 --layout NHWC --implementations eager compile cuda
  pack
}

profile() {
  build
  local name op logs metrics
  for name in G2 step; do
    step "profile of $name" 90 python -m hdgan bench profile "$name" cuda --only 2048 --device cuda --dtype bfloat16 \
      --rounds 1 --out "$out/$name.json.gz"
  done
  command -v ncu > /dev/null || return 0
  metrics=gpu__time_duration.sum,dram__bytes.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed
  metrics+=,sm__warps_active.avg.pct_of_peak_sustained_active,l1tex__data_bank_conflicts_pipe_lsu.sum
  metrics+=,l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio
  logs=$(mktemp -d)
  for op in instance_norm_act avg_pyramid instance_mean instance_index encode_labels label_conv2d; do
    step "ncu of $op" 60 ncu --clock-control none --kernel-name "regex:$op" --launch-count 8 --csv \
      --metrics "$metrics" --log-file "$logs/$op.csv" \
      python -m hdgan bench profile "$op" cuda --device cuda --dtype bfloat16 --rounds 0
    find "$logs" -name '*.csv' -exec cat {} + > "$out/kernels.csv"
  done
}

(($#)) || set -- check speed compile profile
for part in "$@"; do
  case $part in
    check | speed | compile | profile) ;;
    *) echo "run_gpu.sh: there is no part $part: check, speed, compile or profile" >&2; exit 2 ;;
  esac
done
for part in "$@"; do
  SECONDS=0
  "$part" > >(tee "$out/$part.log") 2>&1
done
exit "$status"
