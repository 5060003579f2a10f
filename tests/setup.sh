#!/usr/bin/env bash
# Installs what the tests need beside Python: Slurm, the tools that build its network, a browser, PostgreSQL. Says in one line where it may not.
set -euo pipefail

declare -A package_of=(
  [slurmctld]=slurmctld [slurmd]=slurmd [sbatch]=slurm-client [munged]=munge [ip]=iproute2
  [unshare]=util-linux [nsenter]=util-linux [setpriv]=util-linux [chromium]=chromium
)
export PATH=$PATH:/usr/sbin:/sbin

missing=()
for program in "${!package_of[@]}"; do
  command -v "$program" >/dev/null || missing+=("${package_of[$program]}")
done
# Debian keeps PostgreSQL's own programs off the PATH.
command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
[ ${#missing[@]} -gt 0 ] || exit 0

names=$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "tests/setup.sh: not root on Debian or Ubuntu, so tests that need these are skipped: $names"
  exit 0
fi
echo "tests/setup.sh: installing $names"
export DEBIAN_FRONTEND=noninteractive
# The tests start a database of their own; the package would make and start one for good.
no_database=/etc/postgresql-common/createcluster.d/pose-tests.conf
mkdir -p "${no_database%/*}"
trap 'rm -f "$no_database"' EXIT
echo "create_main_cluster = off" >"$no_database"
apt-get -qq update
# shellcheck disable=SC2086  # names is a list
apt-get -qq install -y --no-install-recommends $names >/dev/null
