#!/usr/bin/env bash
# `pose train` over the nodes of one Slurm allocation. All arguments go to `pose train`:
#
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-gpu=8 slurm/train.sh --config report/baseline.yaml --name baseline
#
# Without GPUs it runs one task on each node; with --ntasks-per-node=N that many. Submit it from the project's folder.
# Settings and code are those of the job's first start, requeued or not. What is edited while it still waits in the queue
# does reach it; `sbatch $(pose site --snapshot runs/baseline) slurm/train.sh ...` holds the code, `pose submit train` both.
# Two minutes before the time limit all ranks save a checkpoint, and the job goes back into the queue to go on from it;
# after a crash as well, until several starts in a row have made no new checkpoint.
#SBATCH --job-name=pose-train
#SBATCH --nodes=1
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@120
set -euo pipefail

fail() {
  echo "train.sh: $*" >&2
  exit 1
}

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

[ -n "${SLURM_JOB_ID:-}" ] || fail "this is a batch script: sbatch slurm/train.sh --config FILE ..."

# Slurm runs a copy of this file from its spool, so the project is found from where it was submitted.
host=$SLURM_SUBMIT_DIR/.venv/bin/pose
[ -x "$host" ] || host=$(command -v pose) || host=""
command=("$host")
if [ -n "${POSE_IMAGE:-}" ]; then
  command=(apptainer exec "$POSE_IMAGE" pose)
elif [ -z "$host" ]; then
  fail "no .venv/bin/pose in $SLURM_SUBMIT_DIR and no pose on PATH"
fi

# Lines of `module NAME`, `set NAME=value` and `word WORD`, read as data.
obey() {
  local kind value
  words=()
  while read -r kind value; do
    case $kind in
      module) load_module "$value" || fail "module load $value failed" ;;
      set) export "${value?}" ;;
      word) words+=("$value") ;;
    esac
  done
}

# What the job's first start has kept: `pose train`'s words, and the variables that lead to the copy of the code.
start=runs/jobs/$SLURM_JOB_ID.start again=""
[ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || [ ! -r "$start" ] || again=yes
if [ -n "$again" ]; then
  obey <"$start"
  set -- "${words[@]}"
fi

# A site profile (configs/site): its modules, its variables, and the words that call `pose` on a node.
if [ -n "${POSE_SITE:-}" ]; then
  lines=$("${command[@]}" site "$POSE_SITE" --show task) || fail "the site profile $POSE_SITE cannot be used"
  obey <<<"$lines"
  [ ${#words[@]} -eq 0 ] || command=("${words[@]}")
fi

if [ -z "$again" ]; then
  "${command[@]}" job begin "$@" || exit
  obey <"$start"
  set -- "${words[@]}"
fi

# One task per GPU, and the node's cores shared out evenly.
tasks=${SLURM_NTASKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
cpus=$((SLURM_CPUS_ON_NODE / tasks))
[ "$cpus" -ge 1 ] || fail "$SLURM_CPUS_ON_NODE cores for $tasks tasks on each node; add --cpus-per-gpu=8, say"

read -r MASTER_ADDR < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR # the port the ranks know by themselves, from the job's number
export PYTHONUNBUFFERED=1 # not srun --unbuffered: its pseudo-terminal would put progress bars into the log

# The ranks hear of every signal themselves; this script outlives it, to see how they end.
trap : TERM USR1 USR2

# A rank that fails ends all at once; ranks that outlive the others' good end have a minute. Each line names its rank.
srun --label --ntasks="$((SLURM_JOB_NUM_NODES * tasks))" --ntasks-per-node="$tasks" --cpus-per-task="$cpus" \
  --kill-on-bad-exit=1 --wait=60 "${command[@]}" train "$@" &
step=$!
code=0
wait "$step" || code=$?
while kill -0 "$step" 2>/dev/null; do # a signal has cut `wait` short
  code=0
  wait "$step" || code=$?
done

# Requeue or not: `pose requeue` knows the run. With 1, 2 and 76 `pose train` has said what a new start would meet again.
# An image has no scontrol: the `pose` outside of it asks, where there is one.
case $code in 1 | 2 | 76) exit "$code" ;; esac
[ "${command[0]}" != apptainer ] || [ -z "$host" ] || command=("$host")
exec "${command[@]}" requeue "$@" --exit_code "$code"
