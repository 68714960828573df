#!/usr/bin/env bash
# One tiny cell of every attack and of every defense (scripts/smoke_cells.py), from a fresh store: each must end with
# rows that say ok or why not, and those of tests/golden.json with the ids and bits that stand there. SMOKE=FOLDER keeps
# what was made.
set -euo pipefail
python=${1:-python}
folder=${SMOKE:-$(mktemp -d)}
[ -n "${SMOKE:-}" ] || trap 'rm -rf "$folder"' EXIT
export MIBENCH_PROGRESS=0 OMP_NUM_THREADS=1
here=(budget=smoke threads=1 "paths.store=$folder/store" "paths.results=$folder/results")
two=(hydra/launcher=joblib hydra.launcher.n_jobs=2 pack=1)  # two cells at a time, one thread each
SECONDS=0

"$python" -m mibench -m "attack=glob(*)" "${here[@]}" "${two[@]}"
attacks=$SECONDS
while read -r words; do
  # shellcheck disable=SC2086
  "$python" -m mibench -m $words "${here[@]}" "${two[@]}" </dev/null
done < <("$python" scripts/smoke_cells.py defenses)
echo "smoke: attacks $attacks s, defenses $((SECONDS - attacks)) s"
while read -r words; do
  # shellcheck disable=SC2086
  "$python" -m mibench $words "${here[@]}" </dev/null
done < <("$python" scripts/smoke_cells.py data)
"$python" - "$folder/results" <<'PY'
import sys
from collections import Counter
from pathlib import Path

from mibench.leaderboard.shards import read_shard

shards = sorted(Path(sys.argv[1], "shards").glob("*.parquet"))
frames = [read_shard(path) for path in shards]
failed = [frame for frame in frames if (frame["status"] == "failed").any()]
counts = Counter("failed" if (f["status"] == "failed").any() else "measured" if (f["status"] == "ok").any() else "skipped" for f in frames)
print(f"smoke: {len(shards)} cells: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
sys.exit(1 if failed or not counts["measured"] else 0)
PY
"$python" scripts/golden.py compare "$folder"
