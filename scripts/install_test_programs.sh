#!/usr/bin/env bash
# Installs the programs that some tests drive (a one-node Slurm, headless Chromium) where apt-get may be used.
# It never fails: where a program stays absent, its tests skip and say so.
set -u
declare -A package=([slurmctld]=slurm-wlm [munged]=munge [chromium]=chromium [chromedriver]=chromium-driver)
PATH="$PATH:/usr/sbin:/sbin"
absent=()
for program in "${!package[@]}"; do
  command -v "$program" > /dev/null || absent+=("${package[$program]}")
done
[ ${#absent[@]} -eq 0 ] && exit 0
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq)
"${as_root[@]}" apt-get update -qq || true
for name in "${absent[@]}"; do  # one by one: another distribution may lack one of them
  "${install[@]}" "$name" > /dev/null || echo "$name could not be installed; the tests that need it will skip." >&2
done
exit 0
