#!/usr/bin/env bash
# One tiny cell of every attack and defense, from a fresh store: each must end with rows that say ok or why not.
set -euo pipefail
python=${1:-python}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export MIBENCH_PROGRESS=0 OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
here=(budget=smoke "paths.store=$folder/store" "paths.results=$folder/results")

"$python" -m mibench -m "attack=glob(*)" "${here[@]}"
"$python" -m mibench -m attack=gmi "defense=glob(*)" "${here[@]}"
"$python" -m mibench -m attack=dlg "defense=glob(*)" "${here[@]}"
if [ -n "${MIBENCH_DATA:-}" ]; then
  "$python" -m mibench -m attack=fredrikson_map dataset=bank_marketing defense=none,rounding "${here[@]}"
  "$python" -m mibench attack=gmi dataset=att_faces "${here[@]}"
fi
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
