#!/usr/bin/env bash
# What is checked on a machine with an NVIDIA GPU, in one call of less than ten minutes:
#   bash .gpu/run.sh [full | second | list | STAGE[=SECONDS],...]   in the repository's root, with what `npm run gpu:check` packed
#   bash scripts/gpu-check.sh ...                                   where Node, the modules and the build are there already
# Each stage has a time limit of its own; one that fails stops no other. Last comes a table. Under $OUT: gpu-check.log (what the stages
# printed), stages.tsv (the table), DEVICE-DATE.json (all of it and the figures; for bench/results), ncu.csv, ncu-step.csv, timeline-*.tsv.
# The GPU's settings are never touched.
set -uo pipefail

# name, seconds, list, what it does. In the order in which they are wanted: what is right comes before what is fast, and where time ends
# (GPU_CHECK_SECONDS) it is the last that are not begun. The seconds of `full`, and those of `second`, stay below 570.
stages='
facts       10 full   machine, driver, toolkit, libraries, tools
load        20 full   what the addon and the plugin need, doctor, whether a device opens
parity      75 full   every parity case on cuda
parity-own  25 full   those of products without cublasLt: the own mma.sync kernel
peft        40 full   runs of PEFT repeated on cuda in f32, bf16 and f16, PEFT reading what comes out, steps as CUDA graphs
paging      15 full   weights that take turns, whole models, frozen weights
capi        25 full   the C ABI, on a stream of the caller too, and on memory of PyTorch
rates       20 full   copies, host to device, bf16 products by cublasLt, by K and row pitch
block       40 full   bench block: the linears of a Llama-3-8B layer, beside PEFT
step        75 full   bench step: Llama-3.2-1B shape, beside PEFT
stream      30 full   bench stream: that with 40 % of its weights on the device
ncu         60 full   bytes and times of the kernels of the linears of a layer, without dropout
layer       45 full   bench lora-linear, beside PEFT
skinny      20 full   bench skinny
attention   25 full   bench attention, beside PyTorch
timeline    60 second bench timeline: the kernels of a step and when none runs, beside those of PEFT
memcheck    75 second compute-sanitizer over some parity cases, own products
step-compiled 135 second bench step beside PEFT with torch.compile
racecheck   75 second the same as memcheck, by its name
synccheck   60 second the same
initcheck   60 second the same
ncu-step    60 second bytes and times of the kernels of a training step of one layer: attention, norms, loss, optimizer
layer-all  300 more   bench lora-linear, all 18 shapes
step-ops    75 more   the same as step, without CUDA graphs
step-apart-ops 75 more the same as step, swiglu and the adapter apart
ncu-dropout 60 more   the same as ncu, with dropout
layer-8b   200 more   bench step: one Llama-3-8B layer, beside PEFT
step-8b    420 more   bench step: Llama-3-8B shape, beside PEFT
stream-8b  420 more   bench stream: Llama-3-8B shape'

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
script=$here/$(basename "${BASH_SOURCE[0]}")
work=${GPU_CHECK_WORK:-/tmp/lowrank-gpu-check}
export GPU_CHECK_WORK=$work OUT=${OUT:-$work/out} LOWRANK_BENCH_MODELS=$work/models
deadline=${GPU_CHECK_SECONDS:-575}
# A rehearsal: another device (cusim), a small model in place of the benches' own.
device=${GPU_CHECK_DEVICE:-cuda} shape=${GPU_CHECK_SHAPE:-}
packed=; [ "$(basename "$here")" = .gpu ] && packed=yes
if [ -n "$packed" ]; then tree=$work/tree; PATH=$work/bin:$PATH; else tree=$(dirname "$here"); fi
logs=$work/logs results=$work/results
tools='nvidia-smi nvcc compute-sanitizer ncu cuobjdump timeout tar xz python3 ldd awk git cmake g++'

has() { command -v "$1" >/dev/null 2>&1; }
# Ends a stage that could not be run; the table says why.
not_run() { echo "$*"; exit 77; }
needs() { local tool; for tool in "$@"; do has "$tool" || not_run "$tool is not here"; done; }
node_ts() { node --import tsx "$@"; }
report() { node_ts scripts/gpu-report.ts "$@"; }
bench() { # NAME ARGS...: beside PyTorch + PEFT where a Python has them
  local name=$1; shift
  node_ts bench/main.ts --device "$device" --only "$name" --json "$results" ${LOWRANK_PEERS_PYTHON:+--peers} "$@" || return 1
  report bench "$(ls -t "$results/$name"*.json | head -1)"
}
vitest_on_gpu() { # NAME ARGS...: counts at the end
  local name=$1 rc; shift
  node node_modules/vitest/vitest.mjs run --reporter=dot --reporter=json --outputFile.json="$results/$name.vitest" "$@"; rc=$?
  report vitest "$results/$name.vitest" && return $rc
}

stage_facts() {
  local tool found='' absent=''
  for tool in $tools; do if has "$tool"; then found+=" $tool"; else absent+=" $tool"; fi; done
  echo "tools here:$found"; echo "tools not here:${absent:- none}"
  uname -a; ldd --version 2>&1 | head -1
  has nvcc && nvcc --version | tail -2
  has python3 && echo "python3: $(python3 --version 2>&1), peers: ${LOWRANK_PEERS_PYTHON:-none with torch, transformers and peft}"
  echo "cublasLt: $(cublaslt || echo 'not found beside Python or under /usr/local/cuda')"
  ls -la /dev/nvidia* 2>/dev/null; df -h /tmp /dev/shm 2>/dev/null; free -m 2>/dev/null | head -2
  [ -r /proc/driver/nvidia/version ] && cat /proc/driver/nvidia/version
  has nvidia-smi || not_run "nvidia-smi is not here; not here either:$absent"
  nvidia-smi || return 1
  nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap,clocks.sm,clocks.mem,temperature.gpu,power.limit --format=csv,noheader > "$work/device.csv" || return 1
  echo "$(head -1 "$work/device.csv"); not here:${absent:- none}"
}

# Where a cublasLt lies that the plugin may not look for: beside a Python's torch.
cublaslt() {
  local file
  for file in ${LOWRANK_PEERS_PYTHON:+"$(dirname "$(dirname "$LOWRANK_PEERS_PYTHON")")"/lib/python3*/site-packages/nvidia/{cu13,cublas}/lib/libcublasLt.so.13} \
    /opt/*/.venv/lib/python3*/site-packages/nvidia/{cu13,cublas}/lib/libcublasLt.so.13 /usr/local/cuda{,-13}/{lib64,targets/x86_64-linux/lib}/libcublasLt.so.13; do
    [ -e "$file" ] && { echo "$file"; return 0; }
  done
  return 1
}

# The toolkit's CUPTI, or that of a Python.
cupti() {
  local file
  for file in "${LOWRANK_CUPTI:-}" /usr/local/cuda{,-13,-13.0}/{lib64,extras/CUPTI/lib64,targets/x86_64-linux/lib,lib}/libcupti.so.13 \
    ${LOWRANK_PEERS_PYTHON:+"$(dirname "$(dirname "$LOWRANK_PEERS_PYTHON")")"/lib/python3*/site-packages/nvidia/{cu13,cuda_cupti}/lib/libcupti.so.13} \
    /opt/*/.venv/lib/python3*/site-packages/nvidia/{cu13,cuda_cupti}/lib/libcupti.so.13; do
    [ -e "$file" ] && { echo "$file"; return 0; }
  done
  return 1
}

stage_load() {
  needs node
  local file bad=0
  for file in build/Release/lowrank.node build/Release/liblowrank_cuda.so; do
    [ -e "$file" ] || { echo "$file is not here"; bad=1; continue; }
    has ldd && ldd "$file" | grep 'not found' && bad=1
  done
  node_ts src/cli/main.ts doctor || bad=1
  report open
  case $? in 0) return $bad ;; 77) [ $bad = 0 ] && exit 77 ;; esac
  return 1
}

stage_rates() {
  [ -x build/bench/cuda/gpu_peak ] || not_run 'build/bench/cuda/gpu_peak was not built'
  build/bench/cuda/gpu_peak facts | tee "$results/rates.json" || return 1
  report rates "$results/rates.json"
}

stage_parity() { vitest_on_gpu parity test/ops -t " on $device " --maxWorkers=4; }
stage_parity-own() {
  LOWRANK_CUBLASLT=off vitest_on_gpu parity-own test/ops/{linear,lora_linear,gated_mlp,linear_cross_entropy}.test.ts -t " on $device " --maxWorkers=4
}
stage_peft() { LOWRANK_TEST_DEVICE=$device vitest_on_gpu peft test/run/peft-{parity,emulated}.test.ts test/peers test/cusim/graphs.test.ts --maxWorkers=4; }
stage_paging() {
  LOWRANK_TEST_DEVICE=$device vitest_on_gpu paging test/cusim/{weight-memory,whole-model,frozen-weights,auto-weight-memory}.test.ts --maxWorkers=4
}

stage_capi() {
  local program=build/capi/own_memory bad=0
  [ -x "$program" ] || not_run "$program was not built"
  LOWRANK_CUDA_PLUGIN=$PWD/build/Release/liblowrank_cuda.so LOWRANK_CUSIM_PLUGIN=$PWD/build/Release/liblowrank_cusim.so "$program" "$device" || bad=1
  [ "$device" = cuda ] && [ -n "${LOWRANK_PEERS_PYTHON:-}" ] && { LOWRANK_LIBRARY=$PWD/build/Release/liblowrank.so "$LOWRANK_PEERS_PYTHON" test/capi/torch_layer.py || bad=1; }
  return $bad
}

# One process, a few cases of each op: each launch takes many times as long under a sanitizer. Own kernels alone: cublasLt's are not ours to
# check, and their code is by far the most to instrument.
sanitize() { # TOOL CASES ARGS...
  local tool=$1 cases=$2 rc; shift 2
  needs compute-sanitizer
  LOWRANK_CUBLASLT=off LOWRANK_PARITY_CASES=${GPU_CHECK_CASES:-$cases} compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 9 --log-file "$logs/$tool.sanitizer" "$@" \
    node node_modules/vitest/vitest.mjs run --reporter=dot --pool=threads --maxWorkers=1 --no-isolate --testTimeout=600000 test/ops -t " on $device "; rc=$?
  grep -vE '^=+ *(COMPUTE-SANITIZER)?$' "$logs/$tool.sanitizer" | head -200
  report sanitizer "$logs/$tool.sanitizer" && return $rc
}
stage_memcheck() { sanitize memcheck 10; } # two of each op took 7 s on an H200
stage_racecheck() { sanitize racecheck 3 --racecheck-report all; }
stage_synccheck() { sanitize synccheck 3; }
stage_initcheck() { sanitize initcheck 3; }

# Of the time that the stage has: after that a bench begins no further shape or pair, and can still end the one it is at.
part() { echo $(( STAGE_SECONDS * $1 / 100 )); }

stage_layer() { bench lora-linear --seconds "$(part 60)"; }
stage_layer-all() { bench lora-linear --all --seconds "$(part 90)"; }
stage_skinny() { LOWRANK_PEERS_PYTHON= bench skinny --seconds "$(part 50)"; }
stage_attention() { bench attention --seconds "$(part 50)"; }
stage_block() { bench block ${shape:+--shape "$shape"} --seconds "$(part 50)"; }
stage_step() { bench step --shape "${shape:-llama1b}" --seconds "$(part 60)" "$@"; }
stage_step-compiled() { stage_step --compiled; }
stage_step-ops() { LOWRANK_GRAPHS=0 stage_step; }
stage_step-apart-ops() { LOWRANK_FUSE=0 stage_step; }
stage_timeline() { LOWRANK_CUPTI=$(cupti) LOWRANK_TIMELINE_FOLDER=$OUT bench timeline --shape "${shape:-llama1b}"; }
stage_stream() { LOWRANK_PEERS_PYTHON= bench stream --shape "${shape:-llama1b}"; }
stage_stream-8b() { LOWRANK_PEERS_PYTHON= bench stream --shape llama8b; }
stage_layer-8b() { bench step --shape llama8b-layer --seconds "$(part 60)"; }
stage_step-8b() { bench step --shape llama8b --seconds "$(part 60)"; }

# NAME COUNT PROGRAM...: launches of a program, into NAME.csv.
profile() {
  local name=$1 count=$2; shift 2
  needs ncu
  local metrics=gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum,sm__throughput.avg.pct_of_peak_sustained_elapsed,sm__warps_active.avg.pct_of_peak_sustained_active
  ncu --clock-control none --target-processes all --print-units base --csv --metrics $metrics --launch-count "$count" --log-file "$OUT/$name.csv" "${filter[@]}" \
    node --import tsx "$@" || return 1
  report ncu "$OUT/$name.csv"
}
stage_ncu() { local filter=(); profile ncu 120 bench/cuda/once.ts "$device" 0 ${shape:+"$shape" 20}; }
stage_ncu-dropout() { local filter=(); profile ncu-dropout 120 bench/cuda/once.ts "$device" 0.1 ${shape:+"$shape" 20}; }
stage_ncu-step() { # all but products of cublasLt
  local filter=(--kernel-name-base demangled --kernel-name 'regex:.*lowrank::.*')
  profile ncu-step 200 bench/cuda/step-once.ts "$device" ${shape:+"$shape" 20}
}

# Everything below runs once, not in each stage.

list() { awk 'NF { print }' <<<"$stages"; }
limit_of() { list | awk -v name="$1" '$1 == name { print $2 }'; }
names_of() { list | awk -v wanted="$1" '$3 == wanted { print $1 }'; } # of a list
now() { echo "${EPOCHREALTIME/[.,]/}"; } # microseconds
seconds_since() { local us=$(( $(now) - $1 )); printf '%d.%d' $(( us / 1000000 )) $(( us / 100000 % 10 )); }

unxz_to() { # FILE.xz: to stdout, by whatever is here
  if has xz; then xz -dc "$1"; else python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$1"; fi
}
unpack() {
  needs tar
  has xz || has python3 || not_run 'neither xz nor python3 is here to unpack with'
  local node=("$here"/node-*.xz) modules=("$here"/modules-*.tar.xz)
  [ -e "${node[0]}" ] && [ -e "${modules[0]}" ] && [ -e "$here/build.tar.xz" ] || { echo "$here must hold node, modules and build: npm run gpu:check"; return 1; }
  rm -rf "$tree" && mkdir -p "$work/bin" "$tree" || return 1
  tar -C "$(dirname "$here")" --exclude=./.git --exclude=./.gpu --exclude=./node_modules --exclude=./build --exclude=./shared -cf - . | tar -C "$tree" -xf - || return 1
  [ -x "$work/bin/node" ] || { unxz_to "${node[0]}" > "$work/bin/node" && chmod +x "$work/bin/node"; } || return 1
  unxz_to "${modules[0]}" | tar -C "$tree" -xf - && unxz_to "$here/build.tar.xz" | tar -C "$tree" -xf - || return 1
  echo "Node $("$work/bin/node" --version), $(du -sm "$tree" | cut -f1) MiB in $tree"
}

# A Python for peers, by looking for packages, since importing torch takes seconds.
find_peers() {
  local python probe='import importlib.util as u, sys; sys.exit(any(u.find_spec(m) is None for m in ("torch", "transformers", "peft")))'
  for python in "${LOWRANK_PEERS_PYTHON:-}" python3 /opt/*/.venv/bin/python3; do
    python=$(command -v "$python" 2>/dev/null) && "$python" -c "$probe" 2>/dev/null && { echo "$python"; return 0; }
  done
  return 1
}

# Its first import reads gigabytes from a cold disk, ten seconds and more: beside the first stages, which time nothing, it costs none of the benches.
warm_peers() { "$LOWRANK_PEERS_PYTHON" -c 'import torch, transformers, peft' > "$logs/warm-peers.log" 2>&1 < /dev/null & }

row() { # NAME RESULT RC SECONDS LAST
  printf '%s\t%s\t%s\t%s\t%s\n' "$@" >> "$OUT/stages.tsv"
  printf '%-14s %-8s %4s %7s s  %s\n' "$@"
}
# Node ends with its version when it dies of an error: the error says more.
last_line() { grep -aEv '^[[:space:]]*$|^Node\.js v' "$1" 2>/dev/null | tail -1 | sed 's/\x1b\[[0-9;]*m//g' | tr '\t' ' ' | cut -c1-240; }

# NAME SECONDS COMMAND...: runs it with a limit, its output in a log, and adds a row.
run_stage() {
  local name=$1 limit=$2 start rc result log=$logs/$1.log; shift 2
  start=$(now)
  STAGE_SECONDS=$limit timeout -k 5 "$limit" "$@" > "$log" 2>&1 < /dev/null; rc=$?
  case $rc in 0) result=ok ;; 77) result='not run' ;; 124 | 137) result=time ;; *) result=failed ;; esac
  [ "$result" = failed ] && tail -1 "$log" | grep -q '^Node\.js v' && grep -aE '^[A-Za-z]*Error' "$log" | tail -1 >> "$log"
  [ "$result" = time ] && echo "stopped after $limit s; before: $(last_line "$log")" >> "$log"
  { echo; echo "=== $name: $result (rc $rc, $(seconds_since "$start") s)"; sed 's/\x1b\[[0-9;]*m//g' "$log" | tail -c 1500000; } >> "$OUT/gpu-check.log"
  row "$name" "$result" "$rc" "$(seconds_since "$start")" "$(last_line "$log")"
}

table() { echo; printf '%-14s %-8s %4s %9s  %s\n' stage result rc time 'last line'; awk -F '\t' '{ printf "%-14s %-8s %4s %7s s  %s\n", $1, $2, $3, $4, $5 }' "$OUT/stages.tsv"; }

main() {
  local begin chosen=() stage name left limit why
  begin=$(now)
  case ${1:-full} in list) list; return 0 ;; full | second) mapfile -t chosen < <(names_of "${1:-full}") ;; *) IFS=, read -ra chosen <<<"$1" ;; esac
  for stage in "${chosen[@]}"; do
    [ -n "$(limit_of "${stage%%=*}")" ] && [[ $stage =~ ^[a-z0-9-]+(=[0-9]+)?$ ]] || { echo "gpu-check: a stage must be one of these, with =SECONDS or without (found $stage)"; list; return 2; }
  done
  has timeout || { echo 'gpu-check: timeout (coreutils) must be here'; return 2; }
  rm -rf "$logs" "$results"; mkdir -p "$logs" "$results" "$OUT"; rm -f "$OUT"/{stages.tsv,gpu-check.log,ncu.csv,ncu-dropout.csv,ncu-step.csv} "$OUT"/timeline-*.tsv "$work"/{device.csv,no-device}; touch "$OUT/stages.tsv"
  [ -n "$packed" ] && run_stage unpack 40 bash "$script" --inside unpack
  LOWRANK_PEERS_PYTHON=$(find_peers) && export LOWRANK_PEERS_PYTHON && warm_peers || unset LOWRANK_PEERS_PYTHON
  for stage in "${chosen[@]}"; do
    name=${stage%%=*} limit=$(limit_of "$name") left=$(( deadline - ($(now) - begin) / 1000000 ))
    [ "$stage" = "$name" ] || limit=${stage#*=}
    [ "$limit" -gt "$left" ] && limit=$left
    why=$(why_not "$name")
    if [ -n "$why" ]; then row "$name" 'not run' - 0 "$why"
    elif [ "$left" -lt 3 ]; then row "$name" 'not run' - 0 "no time is left of $deadline s"
    else run_stage "$name" "$limit" bash "$script" --inside "stage_$name"; fi
  done
  collect
  table
  ! grep -qE '	(failed|time)	' "$OUT/stages.tsv"
}

# Why a stage can't be run, or nothing.
why_not() {
  case $1 in facts | load) return ;; esac
  [ -d "$tree" ] && has node || { echo 'Node is not here'; return; }
  [ "$device" = cuda ] || return
  [ -e "$work/no-device" ] || (cd "$tree" && report device > "$work/no-device" 2>&1)
  tail -1 "$work/no-device"
}

collect() {
  has node && [ -d "$tree" ] || return
  local commit=; [ -e "$here/commit" ] && commit=$(cat "$here/commit")
  (cd "$tree" && report collect "$OUT" "$results" "$work/device.csv" "$commit") || echo 'gpu-check: the results could not be collected'
}

if [ "${1:-}" = --inside ]; then
  case $2 in unpack) ;; *) cd "$tree" || exit 1 ;; esac
  [ -z "${LOWRANK_CUBLASLT:-}" ] && file=$(cublaslt) && export LOWRANK_CUBLASLT=$file
  "$2"
else
  main "$@"
fi
