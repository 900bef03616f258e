#!/bin/sh
# Becomes PID 1 of a throw-away machine: this one's files under an overlay that is gone with it, and systemd.
#
#   boot.sh CGROUP SCRATCH FILES SOURCE SITE_PACKAGES PYTHON_PREFIX TARGET
#
# Run by machine.py as root; everything it mounts is seen by nobody outside its mount namespace.
set -eu

if [ "${1:-}" != inside ]; then
  # A cgroup of its own, entered before the cgroup namespace is made, so that it is the root of what systemd manages.
  echo $$ >"$1/cgroup.procs"
  exec unshare --pid --fork --kill-child --mount --uts --ipc --net --cgroup -- /bin/sh "$0" inside "$@"
fi
scratch=$3 files=$4 source=$5 site_packages=$6 python_prefix=$7 target=$8

mount -t tmpfs -o mode=0755 tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
chmod 0755 "$scratch/upper"
mount -t overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" overlay "$scratch/root"
root=$scratch/root

mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for directory in run tmp var/tmp; do mount -t tmpfs -o mode=1777 tmpfs "$root/$directory"; done
chmod 0755 "$root/run"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
  : >"$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx" # PrivateDevices= wants it
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"

# None of this machine's own units: the ones needed are among the files.
rm -rf "$root/etc/systemd" "$root/opt"
cp -a "$files/." "$root/"
for pair in "$source:source" "$site_packages:site-packages" "$python_prefix:python"; do
  mkdir -p "$root/opt/${pair##*:}"
  mount --bind -o ro "${pair%:*}" "$root/opt/${pair##*:}"
done

cd "$root"
mkdir -p old-root
pivot_root . old-root
umount -l /old-root
# The interpreter was built for another prefix.
echo /opt/python/lib >/etc/ld.so.conf.d/python.conf
/sbin/ldconfig 2>/dev/null
cd /
exec env -i container=throw-away PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system /lib/systemd/systemd --system --unit="$target"
