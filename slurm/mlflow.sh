#!/usr/bin/env bash
# The cluster's MLflow server. On a node for services, or as a job that is requeued when its time is up:
#
#   slurm/mlflow.sh /shared/mlflow                                         this machine alone can reach it
#   slurm/mlflow.sh /shared/mlflow --host head.cluster.example             others too, by name and password
#   sbatch --nodelist=node1 slurm/mlflow.sh /shared/mlflow --host node1 --store_file /shared/mlflow/store
#
# All arguments go to `pose mlflow`. Submit it from the project's folder. docs/tracking.md says the rest.
#SBATCH --job-name=pose-mlflow
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=7-00:00:00
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@60
set -euo pipefail
umask 077 # databases, artifacts and secrets are the owner's alone

fail() {
  echo "mlflow.sh: $*" >&2
  exit 1
}

[ $# -ge 1 ] || fail "name the folder for artifacts and databases: slurm/mlflow.sh /shared/mlflow"

# Slurm runs a copy of this file from its spool, so the project is found from where it was submitted.
project=${SLURM_SUBMIT_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
command=("$project/.venv/bin/pose")
if [ -n "${POSE_IMAGE:-}" ]; then
  command=(apptainer exec "$POSE_IMAGE" pose)
elif [ ! -x "${command[0]}" ]; then
  pose=$(command -v pose) || fail "no .venv/bin/pose in $project and no pose on PATH"
  command=("$pose")
fi

[ -n "${SLURM_JOB_ID:-}" ] || exec "${command[@]}" mlflow "$@"

# In a job: end the server in good order before the time limit, and go back into the queue.
requeue=
"${command[@]}" mlflow "$@" &
server=$!
trap 'requeue=yes; kill -TERM "$server" 2>/dev/null || true' USR1
trap 'kill -TERM "$server" 2>/dev/null || true' TERM INT
code=0
while kill -0 "$server" 2>/dev/null; do # a signal cuts `wait` short
  code=0
  wait "$server" || code=$?
done
if [ -n "$requeue" ]; then
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
