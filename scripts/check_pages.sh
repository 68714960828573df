#!/usr/bin/env bash
# Builds the committed pages afresh from the committed studies, docs/findings.md from its template, studies and claims, and
# the parts of the documentation that repeat cards from the cards; fails where a byte differs.
set -euo pipefail
python=${1:-python}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp -r results/studies results/reference "$folder/"
mkdir "$folder/claims"
cp results/claims/*.yaml "$folder/claims/"
"$python" -m mibench leaderboard "paths.results='$folder'"
status=0
for file in leaderboard.parquet README.md index.html page/numbers.js; do
  if ! cmp "results/$file" "$folder/$file"; then
    echo "results/$file is not what the studies give; run: python -m mibench leaderboard" >&2
    status=1
  fi
done
PYTHONPATH=. "$python" scripts/findings_tables.py --check || status=1
PYTHONPATH=. "$python" scripts/make_docs.py --check || status=1
exit $status
