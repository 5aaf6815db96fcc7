#!/bin/sh
# Makes a small host of its own and becomes its systemd.  Runs in new namespaces (booted.py), and makes no mount that
# outlives them.
#   boot.sh ROOT CHECKOUT       out of this host's /usr, in ROOT, an empty directory; CHECKOUT is there under its own path, and
#                               as /opt/preswapd
#   boot.sh ROOT CHECKOUT KEPT  the same, with /var/lib in the folder KEPT, as of a host that starts again
#   boot.sh ROOT '' SYSTEM      of the system in that folder, which it changes
# SPDX-License-Identifier: BSD-3-Clause
set -eu
root=$1
checkout=$2
system= kept=
if [ "$checkout" ]; then kept=${3:-}; else system=$3; fi

mount --make-rprivate /
if [ "$system" ]; then
  mount --bind "$system" "$root"
else
  mount -t tmpfs -o mode=755 tmpfs "$root"
fi
cd "$root"

mkdir -p usr proc sys dev run tmp var/lib var/log var/tmp root home opt etc/systemd/system old
chmod 1777 tmp var/tmp
if [ -z "$system" ]; then
  mount --rbind -o ro /usr usr
  for link in bin lib lib64 sbin; do
    if [ -e "/$link" ]; then ln -s "usr/$link" "$link"; fi
  done
  for file in passwd group nsswitch.conf ld.so.cache ld.so.conf ld.so.conf.d alternatives localtime; do
    if [ -e "/etc/$file" ]; then cp -a "/etc/$file" etc/; fi
  done
fi
: > etc/machine-id

mount -t proc proc proc
mount -t sysfs sysfs sys
# The cgroup namespace began in a cgroup of ours, so this shows only what is below it.
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
if [ "$kept" ]; then
  mount --bind "$kept" var/lib
  # Each start has a boot id of its own, as a host has.  Units do not see it by themselves: they have a /proc of their own.
  cat proc/sys/kernel/random/uuid > run/boot_id
  mount --bind run/boot_id proc/sys/kernel/random/boot_id
fi
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do
  : > "dev/$node"
  mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/shm dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd

if [ "$checkout" ]; then
  mkdir -p ".$checkout"
  mount --bind "$checkout" ".$checkout"
  ln -s "$checkout/.venv" opt/preswapd
fi

pivot_root . old
umount -l old
exec env -i container=other PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --system --unit=basic.target --log-target=journal
