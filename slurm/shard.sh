#!/usr/bin/env bash
# `pose submit shards`: raw data to a shard set by a job array, one task per share of the videos. All arguments go there:
#
#   bash slurm/shard.sh /data/human3.6m data/shards/h36m --tasks 16 --job.cpus 16 --job.partition cpu
#
# On a login node, from the project's folder; or with sbatch, where jobs may submit jobs. Run it again to have lost
# tasks made anew; `--dry-run` shows the batch script.
#SBATCH --job-name=pose-shard
#SBATCH --ntasks=1
#SBATCH --output=%x-%j.out
set -euo pipefail

fail() {
  echo "shard.sh: $*" >&2
  exit 1
}

[ $# -ge 2 ] || fail "give the raw folder and that of the set: bash slurm/shard.sh RAW OUT [--tasks 16] ..."

# In a job Slurm runs a copy of this file from its spool, so the project is found from where it was submitted.
folder=${SLURM_SUBMIT_DIR:-$PWD}
pose=$folder/.venv/bin/pose
[ -x "$pose" ] || pose=$(command -v pose) || fail "no .venv/bin/pose in $folder and no pose on PATH"

# What this job was given is not what the tasks ask for.
for name in "${!SLURM_@}"; do
  [ "$name" = SLURM_CONF ] || unset "$name"
done

exec "$pose" submit shards "$@"
