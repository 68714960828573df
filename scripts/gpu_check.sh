#!/usr/bin/env bash
# What only a GPU can show, in one run of at most 8 minutes: every cell of the smoke run on CUDA against the CPU's values,
# the same in bfloat16, and speed, peak memory and host synchronisations of white-box steps (scripts/gpu_check.py).
# The three runs share the machine's cores; the steps are timed after them, alone. GPU_CHECK=FOLDER keeps what was made.
set -euo pipefail
python=${1:-python}
"$python" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "gpu_check: there is no CUDA device here, so nothing was checked.")'
folder=${GPU_CHECK:-$(mktemp -d)}
[ -n "${GPU_CHECK:-}" ] || trap 'rm -rf "$folder"' EXIT
export MIBENCH_PROGRESS=0 OMP_NUM_THREADS=1
here=$(dirname "$0")
workers=$((($(nproc) + 2) / 3))
mkdir -p "$folder"
"$python" "$here/smoke_cells.py" attacks defenses data 4 >"$folder/cells.txt"
run() {  # run NAME OVERRIDE...: all cells, from a store of its own
  name=$1; shift
  timeout 370 xargs -P "$workers" -L 1 -a "$folder/cells.txt" "$python" -m mibench -m "$@" budget=smoke threads=1 \
    "paths.store=$folder/$name/store" "paths.results=$folder/$name/results" >"$folder/$name.log" 2>&1 ||
    echo "gpu_check: not every cell ended well at $name; see $folder/$name.log (GPU_CHECK=FOLDER keeps it)." >&2
}
run cpu device=cpu &
run cuda device=cuda &
run bfloat16 device=cuda precision=bfloat16 &
wait
timeout 95 "$python" "$here/gpu_check.py" "$folder"
