#!/usr/bin/env bash
# run_gpu.sh PART [OUT [SECONDS]]: what a machine with a GPU is asked, in parts that each end after SECONDS.
#
#   quick-check   build, tests of the CUDA and Triton kernels, a tensor of more than 2^31 elements, memcheck; 230 s
#   quick-speed   by one process the ops, a frame, a step, CUDA graphs and torch.compile; a profile; ncu; 230 s
#   quick         both
#   check         quick-check with racecheck; 540 s
#   speed         all benchmarks, compile: those of torch.compile, profile: traces and counters; 540 s each
#   publish       with the rows in OUT, anywhere: add them to benchmarks/results, and write the pages of the checkout
#
# OUT (gpu-results unless given) gets a log of each part, rows/<device>.csv, verdict.md, and what a part says below. The
# steps of an earlier part count in verdict.md if it ran on this machine. Needs python3 with torch and what
# pyproject.toml names as `test`, but no network: wheels/*.whl, where there are any, are installed beside the rest.
# HDGAN_REVISION names the commit of a copy without .git. `run_gpu.sh --cpu PART …` rehearses a quick part on a CPU.
set -euo pipefail

usage() {
  echo "run_gpu.sh: $1; run_gpu.sh [--cpu] PART [OUT [SECONDS]], where PART is one of ${parts[*]}" >&2
  exit 2
}

parts=(quick-check quick-speed quick check speed compile profile publish)
device=cuda marks=gpu kernels=cuda many=31_elements
tests=(tests/ops tests/models/test_backends.py tests/test_gpu.py tests/training/test_prefetch.py
  tests/training/test_cuda_graph.py)
chosen="without_deterministic or equals_reference or planes_equal or (near_truth and (avg_pyramid or odd or split))"
if [[ ${1:-} == --cpu ]]; then
  shift
  device=cpu marks="not gpu" kernels=cpu many=odd tests=(tests/ops/test_encode_labels.py) chosen=encode
fi
part=${1:-} seconds=${3:-}
[[ -n $part ]] || usage "no part is given"
[[ $part != *" "* && " ${parts[*]} " == *" $part "* ]] || usage "there is no part $part"
[[ -z $seconds || $seconds =~ ^[1-9][0-9]*$ ]] || usage "SECONDS is $seconds"
(($# <= 3)) || usage "there is more than a part, a folder and seconds"
[[ $device == cuda || $part == quick* ]] || usage "--cpu rehearses quick parts, not $part"
out=$(mkdir -p "${2:-gpu-results}" && cd "${2:-gpu-results}" && pwd)
cd "$(dirname "$0")/.."
# Ignored by git, and kept from one part to the next.
state=$PWD/build/gpu steps=$PWD/build/gpu/steps.tsv
mkdir -p "$state"
export PYTHONPATH=$PWD:$state/site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
many_processes=()

note() { # step, status, seconds
  printf '%s\t%s\t%s\n' "$1" "$2" "$3" | tee -a "$steps" >> "$part_steps"
  [[ $2 == ok ]] || echo "== $1: $2"
}

step() { # what, most seconds, command…: a step that fails or takes too long is noted, and the others go on
  local left=$((limit - SECONDS)) began=$SECONDS status=0
  ((left >= 5)) || { note "$1" "no time was left" 0; return; }
  echo "== $1, after $SECONDS s"
  # As Ctrl-C: pytest tells what failed so far, and a benchmark writes its rows.
  timeout -s INT -k 10 "$(($2 < left ? $2 : left))" "${@:3}" || status=$?
  case $status in
    0) note "$1" ok $((SECONDS - began)) ;;
    124 | 137) note "$1" "out of time" $((SECONDS - began)) ;;
    *) note "$1" "failed with status $status" $((SECONDS - began)) ;;
  esac
}

build() {
  local wheels=(wheels/*.whl) settings=(HDGAN_BUILD=cpu) arch
  [[ ! -e ${wheels[0]} ]] || step "wheels" 60 python3 -m pip install -q --no-index --no-deps --no-compile --upgrade \
    --target "$state/site" "${wheels[@]}"
  if [[ $device == cuda ]]; then
    if ! arch=$(python3 -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())'); then
      note "build" "failed: torch finds no GPU" 0
      return 1
    fi
    settings=(HDGAN_BUILD=cuda TORCH_CUDA_ARCH_LIST="$arch")
  fi
  # egg_info: hdgan asks for its version when it is imported.
  step "build" 200 env "${settings[@]}" python3 setup.py -q egg_info build_ext --inplace
  step "info" 30 python3 -m hdgan info
}

run_tests() { # what, most seconds, expression for -k, further options: pytest of what is marked gpu
  step "$1" "$2" python3 -m pytest -q -p no:cacheprovider -m "$marks" "${@:4}" "${tests[@]}" -k "$3"
}

sanitize() { # tool: memcheck finds accesses out of bounds, where each tensor has memory of its own; racecheck races
  if ! command -v compute-sanitizer > /dev/null; then
    note "$1" "compute-sanitizer is not installed" 0
    return
  fi
  step "$1" 120 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 9 \
    python3 -m pytest -q -p no:cacheprovider -m "$marks" "${tests[0]}" -k "$kernels and ($chosen)"
}

quick-check() {
  rm -f "$steps"
  build || return
  # Triton's kernels are compiled by many processes, so the sanitizer runs beside them.
  if python3 -c 'import xdist' 2> /dev/null; then
    many_processes=(-n "$(($(nproc) < 14 ? $(nproc) : 12))")
    export TORCHINDUCTOR_COMPILE_THREADS=2
  fi
  { run_tests "tests: many elements" 60 "$many"; sanitize memcheck; } > "$out/memcheck.log" 2>&1 &
  run_tests "tests: CUDA" 120 "not triton and not 31_elements" "${many_processes[@]}"
  run_tests "tests: Triton" 200 "triton and not 31_elements" "${many_processes[@]}"
  wait
  tail -n 15 "$out/memcheck.log"
}

check() {
  quick-check || return
  sanitize racecheck
}

count_kernels() { # most seconds, ops…: counters of kernels to $OUT/ncu.csv
  local op logs metrics
  command -v ncu > /dev/null || { note "ncu" "ncu is not installed" 0; return; }
  metrics=gpu__time_duration.sum,dram__bytes.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed
  metrics+=,sm__warps_active.avg.pct_of_peak_sustained_active,l1tex__data_bank_conflicts_pipe_lsu.sum
  metrics+=,l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio
  logs=$(mktemp -d)
  for op in "${@:2}"; do
    step "ncu: $op" "$1" ncu --clock-control none --kernel-name "regex:$op" --launch-count 8 --csv \
      --metrics "$metrics" --log-file "$logs/$op.csv" \
      python3 -m hdgan bench profile "$op" "$kernels" --device "$device" --dtype bfloat16 --rounds 0
  done
  find "$logs" -name '*.csv' -exec cat {} + > "$out/ncu.csv"
  rm -r "$logs"
}

quick-speed() {
  build || return
  local left=$((limit - SECONDS - 90)) # two of ncu, and the verdict
  step "speed" "$left" python3 -m hdgan.benchmarks.quick "$out" --device "$device" --seconds "$left"
  count_kernels 40 instance_norm_act avg_pyramid
}

bench() { # most seconds, benchmarks…, options: an illegal access in one call spoils none of the others
  step "bench ${*:2}" "$1" python3 -m hdgan bench "${@:2}" --device cuda --dtype bfloat16 --seconds 0.1 --out "$out/rows"
}

speed() {
  build || return
  bench 100 step
  bench 100 encode_labels instance_mean instance_index label_conv2d avg_pyramid --implementations eager cuda triton
  bench 110 instance_norm_act --implementations eager cuda triton
  bench 130 G1 G2 D E residual_block --implementations eager cuda triton cuda-graph
  bench 30 data_loading startup
}

compile() {
  build || return
  bench 150 G1 --layout NHWC --implementations eager compile cuda
  bench 120 instance_norm_act --only block --layout NHWC --implementations eager compile max-autotune cuda
  bench 60 avg_pyramid --layout NHWC --implementations eager compile cuda
  bench 150 G2 --layout NHWC --implementations eager compile cuda
}

profile() {
  build || return
  local name
  for name in G2 step; do
    step "profile of $name" 90 python3 -m hdgan bench profile "$name" cuda --only 2048 --device cuda --dtype bfloat16 \
      --rounds 1 --out "$out/$name.json.gz"
  done
  count_kernels 60 instance_norm_act avg_pyramid instance_mean instance_index encode_labels label_conv2d
}

publish() {
  step "rows" 60 python3 -c 'import sys; from pathlib import Path; from hdgan.benchmarks.rows import publish
publish(Path(sys.argv[1]))' "$out/rows"
  step "report" 120 python3 -m hdgan bench report --publish
}

run() { # part: run it, with a log, and write the verdict; fails if a step did
  local limit=${seconds:-540} part_steps=$state/part.tsv
  [[ $1 != quick-* ]] || limit=${seconds:-230} # and the verdict
  : > "$part_steps"
  SECONDS=0
  # The pipe is waited for, unlike a process that a redirection starts.
  {
    "$1" || true # noted
    [[ $1 == publish ]] || python3 -m hdgan.benchmarks.verdict "$steps" "$out" --device "$device"
    echo "== $1 took $SECONDS s"
  } 2>&1 | tee "$out/$1.log"
  ! grep -qv $'\tok\t' "$part_steps"
}

status=0
case $part in
  quick) for one in quick-check quick-speed; do run "$one" || status=1; done ;;
  *) run "$part" || status=1 ;;
esac
exit "$status"
