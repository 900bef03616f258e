#!/usr/bin/env bash
# Install or upgrade one of the services on this machine. Idempotent; run as root from an unpacked source tree:
#
#   systemd/install.sh adapter        the adapter, on the GPU instance
#   systemd/install.sh orchestrator   the orchestrator, on a small instance
#
# It has a Python environment of its own under /opt and touches neither ComfyUI's nor the system's.
set -euo pipefail

service=${1:-}
case "$service" in
  adapter)      home=/opt/sqs-adapter  config=/etc/sqs-adapter  unit=sqs-adapter.service   group=ubuntu ;;
  orchestrator) home=/opt/orchestrator config=/etc/orchestrator unit=orchestrator.service group=root ;;
  *) echo "usage: $0 adapter|orchestrator" >&2; exit 64 ;;
esac
[ "$(id -u)" -eq 0 ] || { echo "$0: must be run as root" >&2; exit 77; }

source_dir=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      python=$candidate
      break
    fi
  done
fi
[ -n "$python" ] || { echo "$0: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 69; }

# Beside the running one, and switched only when it is complete: a failed upgrade leaves the old version in place.
version=$home/versions/$(date -u +%Y%m%dT%H%M%SZ)
mkdir -p "$home/versions" "$config"
"$python" -m venv "$version"
"$version/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
  -r "$source_dir/requirements.lock"
"$version/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps "$source_dir"
ln -sfn "$version" "$home/venv.new"
mv -T "$home/venv.new" "$home/venv"
install -m 0644 "$source_dir/README.md" "$home/README.md"

environment=$config/environment
if [ ! -e "$environment" ]; then
  install -m 0640 -g "$group" "$source_dir/systemd/${unit%.service}.environment.example" "$environment"
  echo "$0: fill in $environment, then run: systemctl restart $unit"
fi

install -m 0644 "$source_dir/systemd/$unit" "/etc/systemd/system/$unit"
if [ "$service" = adapter ]; then
  install -m 0644 "$source_dir"/systemd/comfyui-restart.{path,service} /etc/systemd/system/
fi
systemctl daemon-reload
systemctl enable "$unit"
systemctl try-restart "$unit"

# The version before this one stays for a rollback: ln -sfn OLD $home/venv && systemctl restart $unit
find "$home/versions" -mindepth 1 -maxdepth 1 -type d | sort | head -n -2 | xargs -r rm -rf
