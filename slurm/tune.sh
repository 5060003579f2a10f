#!/usr/bin/env bash
# `pose tune` over the nodes of one Slurm allocation: a Ray head on the first node, a worker on each other one, all of them
# gone when the search ends. All arguments go to `pose tune`:
#
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-gpu=8 slurm/tune.sh --config tune/pyramid.yaml --search.gpus 2
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-gpu=8 slurm/tune.sh --resume pyramid
#
# Submit it from the project's folder; `sbatch $(pose site mysite.yaml --nodes 4) slurm/tune.sh ...` adds a site's options,
# modules and variables. Ray listens on the nodes' addresses in the cluster's network, for the job's life, and to those who
# know the job's token. The loss of another node than the first ends the trials on it alone, which start again elsewhere from
# their checkpoints. Five minutes before the time limit all trials save a checkpoint, and the job goes back into the queue
# and on with its search; so it does after the loss of its first node. `pose submit tune` makes a job of this script.
#SBATCH --job-name=pose-tune
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@300
set -euo pipefail

fail() {
  echo "tune.sh: $*" >&2
  exit 1
}

[ -n "${SLURM_JOB_ID:-}" ] || fail "this is a batch script: sbatch slurm/tune.sh --config FILE ..."

# A batch shell is no login shell, so `module` may still have to be defined; what defines it knows no `set -u`.
load_module() {
  local file code=0
  set +u
  for file in lmod z00_lmod modules; do
    # shellcheck source=/dev/null
    [ -n "$(type -t module)" ] || [ ! -r "/etc/profile.d/$file.sh" ] || . "/etc/profile.d/$file.sh"
  done
  module load "$1" || code=$?
  set -u
  return "$code"
}

# Slurm runs a copy of this file from its spool, so the project is found from where it was submitted.
bin=${POSE_BIN:-$SLURM_SUBMIT_DIR/.venv/bin}
[ -x "$bin/pose" ] || bin=$(dirname "$(command -v pose)") || fail "no .venv/bin/pose in $SLURM_SUBMIT_DIR and no pose on PATH"

# A site profile (configs/site): its modules, its variables, and the environment with the project. Read as data.
if [ -n "${POSE_SITE:-}" ]; then
  lines=$("$bin/pose" site "$POSE_SITE" --show task) || fail "the site profile $POSE_SITE cannot be used"
  word=
  while read -r kind value; do
    case $kind in
      module) load_module "$value" || fail "module load $value failed" ;;
      set) export "${value?}" ;;
      word) word=${word:-$value} ;;
    esac
  done <<<"$lines"
  [ "$word" != apptainer ] || fail "a search starts Ray on every node, which needs a venv: set venv in $POSE_SITE, not image"
  [ -z "$word" ] || bin=$(dirname "$word")
fi

# Where the search stands. Its settings are read here for the first time: what is wrong with them is said before Ray starts.
search_folder=${POSE_SEARCH:-$("$bin/pose" tune folder "$@")}

# The first node's address that the others reach. Its own name may stand for 127.0.1.1, as Debian has it.
read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
on_head=(srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --nodelist="$head" --overlap)
reachable() { tr ' ' '\n' | grep -v '^127\.\|:\|^$' | head -n 1; }
head_ip=$("${on_head[@]}" hostname --ip-address | reachable) || head_ip=$("${on_head[@]}" hostname -I | reachable) ||
  fail "$head has no address but its loopback's (hostname -I); Ray on the other nodes could not reach it"
port=$((20000 + SLURM_JOB_ID % 10000)) # below the ports that the kernel hands out
export RAY_USAGE_STATS_ENABLED=0 RAY_CHDIR_TO_TRIAL_DIR=0 RAY_memory_monitor_refresh_ms=0 PYTHONUNBUFFERED=1
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
cpus=$SLURM_CPUS_ON_NODE gpus=${SLURM_GPUS_ON_NODE:-0}
common=(--num-cpus="$cpus" --num-gpus="$gpus" --object-store-memory=100000000 --disable-usage-stats --block)

# `--block` keeps Ray in the step, so that Slurm ends it with the job, however that ends.
"${on_head[@]}" --cpus-per-task="$cpus" \
  "$bin/ray" start --head --node-ip-address="$head_ip" --port="$port" --include-dashboard=false "${common[@]}" &
steps=($!)
workers=$((SLURM_JOB_NUM_NODES - 1))
if [ "$workers" -gt 0 ]; then
  srun --nodes="$workers" --ntasks="$workers" --ntasks-per-node=1 --exclude="$head" --cpus-per-task="$cpus" --overlap \
    "$bin/ray" start --address="$head_ip:$port" "${common[@]}" &
  steps+=($!)
fi
trap 'kill "${steps[@]}" 2>/dev/null || true; wait' EXIT

alive() { "$bin/ray" status --address="$head_ip:$port" 2>/dev/null | grep -c 'node_' || true; }
two_minutes_on=$((SECONDS + 120)) # of the clock: a look takes seconds itself
while joined=$(alive) && [ "$joined" -lt "$SLURM_JOB_NUM_NODES" ] && [ "$SECONDS" -lt "$two_minutes_on" ]; do
  kill -0 "${steps[0]}" 2>/dev/null || fail "Ray did not start on $head"
  sleep 2
done
[ "$joined" -gt 0 ] || fail "Ray on $head does not answer at $head_ip:$port"
[ "$joined" -ge "$SLURM_JOB_NUM_NODES" ] ||
  echo "tune.sh: $joined of $SLURM_JOB_NUM_NODES nodes have joined Ray on $head_ip in two minutes; the search begins on these" >&2

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
status=$(grep '"kind": "status"' "$search_folder/metrics.jsonl" 2>/dev/null | tail -n 1) || true
if [ -n "$stopped" ] && [ "$code" -eq 0 ] && [[ $status == *'"stopped"'* ]]; then
  echo "job $SLURM_JOB_ID goes back into the queue, as it was asked to stop; it will go on with $search_folder"
  trap '' TERM # of Slurm, which ends this script when it requeues the job
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
