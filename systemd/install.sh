#!/usr/bin/env bash
# Install or upgrade one of the services on this machine. Idempotent; run as root from an unpacked source tree:
#
#   systemd/install.sh adapter        the adapter, on the GPU instance
#   systemd/install.sh orchestrator   the orchestrator, on a small instance
#
# It has a Python environment of its own under /opt and touches neither ComfyUI's nor the system's. PYTHON names the
# interpreter to make it of (3.11 or newer, with venv and ensurepip; default: the newest found).
# Exit codes as in sysexits.h: 64 wrong usage, 67 no such user, 69 no Python, 77 not root.
set -euo pipefail

fail() {
  echo "$0: $2" >&2
  exit "$1"
}

service=${1:-}
case "$service" in
  adapter)      unit=sqs-adapter.service  name=sqs-adapter  group=ubuntu ;;
  orchestrator) unit=orchestrator.service name=orchestrator group=root ;;
  *) fail 64 "usage: $0 adapter|orchestrator" ;;
esac
[ "$(id -u)" -eq 0 ] || fail 77 "must be run as root"
getent group "$group" >/dev/null || fail 67 "$unit runs as $group, who does not exist here; change User= and Group="

# Ubuntu packs venv and ensurepip apart from the interpreter.
is_usable() {
  "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}
python=
for candidate in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3}; do
  if is_usable "$candidate"; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || fail 69 "Python 3.11 or newer is needed, with its modules venv and ensurepip; set PYTHON=/path/to/python3.11"

home=/opt/$name
environment=/etc/$name/environment
source_dir=$(cd "$(dirname "$0")/.." && pwd)

# Beside the running one, and switched only when it is complete: a failed upgrade leaves the old version in place.
mkdir -p "$home/versions" "${environment%/*}"
version=$(mktemp -d "$home/versions/$(date -u +%Y%m%dT%H%M%SZ).XXXX")
trap 'rm -rf "$version"' EXIT
chmod 0755 "$version"
"$python" -m venv "$version"
install_packages() {
  "$version/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}
install_packages --only-binary=:all: --require-hashes --no-deps -r "$source_dir/requirements-$service.lock"
install_packages --no-index --no-build-isolation --no-deps "$source_dir"

previous=$(readlink "$home/venv" || true)
ln -sfn "$version" "$home/venv.new"
mv -T "$home/venv.new" "$home/venv"
trap - EXIT
install -m 0644 "$source_dir/README.md" "$home/README.md"

if [ ! -e "$environment" ]; then
  install -m 0640 -g "$group" "$source_dir/systemd/$name.environment.example" "$environment"
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
for old in "$home/versions"/*; do
  [ "$old" = "$version" ] || [ "$old" = "$previous" ] || rm -rf "$old"
done
