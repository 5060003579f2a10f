#!/usr/bin/env bash
# `pose tune` over the nodes of one Slurm allocation: a Ray head on the first node, a worker on each other one, all of them
# gone when the search ends. All arguments go to `pose tune`:
#
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-gpu=8 slurm/tune.sh --config tune/pyramid.yaml --search.gpus 2
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-gpu=8 slurm/tune.sh --resume pyramid
#
# Ray listens on the nodes' addresses in the cluster's network, for the job's life, and to those who know the job's token.
# The loss of another node than the first ends the trials on it alone, which start again elsewhere from their checkpoints.
# Five minutes before the time limit all trials save a checkpoint; submit `--resume NAME` to go on. `pose submit tune` makes
# a job of this script that names its search (POSE_SEARCH, the folder): that one goes back into the queue, and on with it.
#SBATCH --job-name=pose-tune
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --no-kill
#SBATCH --signal=B:USR1@300
set -euo pipefail

fail() {
  echo "tune.sh: $*" >&2
  exit 1
}

[ -n "${SLURM_JOB_ID:-}" ] || fail "this is a batch script: sbatch slurm/tune.sh --config FILE ..."

# Slurm runs a copy of this file from its spool, so the project is found from where it was submitted.
bin=${POSE_BIN:-$SLURM_SUBMIT_DIR/.venv/bin}
[ -x "$bin/pose" ] || bin=$(dirname "$(command -v pose)") || fail "no .venv/bin/pose in $SLURM_SUBMIT_DIR and no pose on PATH"

read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | tr ' ' '\n' | grep -v '^127\.\|:' | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000)) # below the ports that the kernel hands out
export RAY_USAGE_STATS_ENABLED=0 RAY_CHDIR_TO_TRIAL_DIR=0 PYTHONUNBUFFERED=1
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
cpus=$SLURM_CPUS_ON_NODE gpus=${SLURM_GPUS_ON_NODE:-0}
common=(--num-cpus="$cpus" --num-gpus="$gpus" --object-store-memory=100000000 --disable-usage-stats --block)

# `--block` keeps Ray in the step, so that Slurm ends it with the job, however that ends.
srun --nodes=1 --ntasks=1 --nodelist="$head" --cpus-per-task="$cpus" --overlap \
  "$bin/ray" start --head --node-ip-address="$head_ip" --port="$port" --include-dashboard=false "${common[@]}" &
steps=($!)
workers=$((SLURM_JOB_NUM_NODES - 1))
if [ "$workers" -gt 0 ]; then
  srun --nodes="$workers" --ntasks="$workers" --exclude="$head" --cpus-per-task="$cpus" --overlap \
    "$bin/ray" start --address="$head_ip:$port" "${common[@]}" &
  steps+=($!)
fi
trap 'kill "${steps[@]}" 2>/dev/null || true; wait' EXIT

alive() { "$bin/ray" status --address="$head_ip:$port" 2>/dev/null | grep -c 'node_' || true; }
for _ in $(seq 60); do
  [ "$(alive)" -ge "$SLURM_JOB_NUM_NODES" ] && break
  kill -0 "${steps[0]}" 2>/dev/null || fail "Ray did not start on $head"
  sleep 2
done

# The search runs here, beside the head, and hears the signal that comes before the time limit. In a job that Slurm has
# started again, as after the loss of its first node, it goes on with what stands in its folder.
RAY_ADDRESS=$head_ip:$port "$bin/pose" tune "$@" &
search=$!
stopped=
trap 'stopped=1; kill -USR1 "$search" 2>/dev/null || true' USR1 TERM
code=0
wait "$search" || code=$?
while kill -0 "$search" 2>/dev/null; do # a signal has cut `wait` short
  code=0
  wait "$search" || code=$?
done
status=$(grep '"kind": "status"' "${POSE_SEARCH:-}/metrics.jsonl" 2>/dev/null | tail -n 1) || true
if [ -n "$stopped" ] && [ "$code" -eq 0 ] && [[ $status == *'"stopped"'* ]]; then
  echo "job $SLURM_JOB_ID goes back into the queue, as it was asked to stop; it will go on with $POSE_SEARCH"
  trap '' TERM # of Slurm, which ends this script when it requeues the job
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
