#!/usr/bin/env bash
# One tiny cell of every attack and of every defense, from a fresh store: each must end with rows that say ok or why not,
# and those of tests/golden.json with the ids and bits that stand there. SMOKE=FOLDER keeps what was made.
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
while read -r words; do  # every defense before the first of these attacks that it can be met by
  # shellcheck disable=SC2086
  "$python" -m mibench -m $words "${here[@]}" "${two[@]}" </dev/null
done < <("$python" - <<'PY'
import os

from mibench.planning.catalogue import entries
from mibench.planning.grid import plan_cells

attacks = ["attack=gmi", "attack=dlg", "attack=split_rmle", "attack=inversion_network", "attack=brepmi"]
if os.environ.get("MIBENCH_DATA"):
    attacks.append("attack=fredrikson_map dataset=bank_marketing")
chosen = {}
for one in entries("defense"):
    cells = [tuple(f"{attack} defense={one.name}".split()) for attack in attacks]
    met = [attack for attack, cell in zip(attacks, plan_cells(cells), strict=True) if not cell.reason]
    if met:
        chosen.setdefault(met[0], []).append(one.name)
for attack, names in chosen.items():
    print(attack, "defense=" + ",".join(names))
PY
)
echo "smoke: attacks $attacks s, defenses $((SECONDS - attacks)) s"
if [ -n "${MIBENCH_DATA:-}" ]; then
  "$python" -m mibench attack=gmi dataset=att_faces "${here[@]}"
  while read -r file words; do  # one real component of every other kind of data and task
    # shellcheck disable=SC2086
    [ ! -e "$MIBENCH_DATA/$file" ] || "$python" -m mibench $words "${here[@]}" </dev/null
  done <<'CELLS'
planetoid/cora.npz attack=link_stealing dataset=cora
SST-2/train.tsv attack=tag dataset=sst2 attack.iterations=100
adult/adult.data attack=tableak dataset=adult
free-spoken-digit-dataset/recordings attack=mi_face dataset=fsdd
free-spoken-digit-dataset/recordings attack=gmi dataset=fsdd dataset.label=digit prior.iterations=50
cifar10/train attack=imprint dataset=cifar10 setting.batch_size=8
CELLS
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
"$python" scripts/golden.py compare "$folder"
