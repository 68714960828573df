#!/usr/bin/env bash
# What only a GPU can show, in one run of at most 8 minutes: the smoke cells of all attacks on CUDA against the CPU's
# values, the same in bfloat16, and speed, peak memory and host synchronisations of white-box steps (scripts/gpu_check.py).
set -euo pipefail
python=${1:-python}
"$python" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "gpu_check: there is no CUDA device here, so nothing was checked.")'
folder=${GPU_CHECK:-$(mktemp -d)}
[ -n "${GPU_CHECK:-}" ] || trap 'rm -rf "$folder"' EXIT
export MIBENCH_PROGRESS=0 OMP_NUM_THREADS=1
cores=$(nproc)
run() {  # run NAME OVERRIDE...: all attacks, from a store of its own
  name=$1; shift
  timeout 200 "$python" -m mibench -m "attack=glob(*)" budget=smoke threads=1 "paths.store=$folder/$name/store" \
    "paths.results=$folder/$name/results" hydra/launcher=joblib pack=1 "$@"
}
status=0
run cpu device=cpu "hydra.launcher.n_jobs=$cores" || status=1
run cuda device=cuda hydra.launcher.n_jobs=4 || status=1
run bfloat16 device=cuda precision=bfloat16 hydra.launcher.n_jobs=4 || status=1
timeout 100 "$python" "$(dirname "$0")/gpu_check.py" "$folder" || status=1
exit $status
