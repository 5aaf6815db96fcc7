#!/bin/busybox sh
# The guest's first and only service: brings up what a swapping guest needs, then runs what the host
# sends over a virtio-serial port, one command after the other.
#
# A request is a line "NUMBER COMMAND", the answer a line "NUMBER STATUS OUTPUT"; command and output are
# in base64.  After the start it sends "0 0 VERSION" of the kernel by itself.
# SPDX-License-Identifier: BSD-3-Clause

export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/run LC_ALL=C
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /etc
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

while read -r module; do
  insmod "/modules/$module.ko"
done </modules/order

port=
while [ -z "$port" ]; do
  for candidate in /sys/class/virtio-ports/*; do
    [ "$(cat "$candidate/name" 2>/dev/null)" = preswapd.commands ] && port=/dev/${candidate##*/}
  done
  [ -n "$port" ] || usleep 20000
done

answer() { # NUMBER STATUS, output on standard input
  printf '%s %s ' "$1" "$2" >&3
  base64 -w 0 >&3
  echo >&3
}

exec 3<>"$port"
uname -r | answer 0 0
ended=0
# A guest that wakes up from hibernation reads an end of file too, until its kernel has heard from QEMU
# that the host's end is open: late on a busy host.
while [ "$ended" -lt 100 ]; do
  if ! read -r number code <&3; then
    ended=$((ended + 1))
    usleep 100000
    continue
  fi
  ended=0
  # Only this shell is safe from the OOM killer (it is process 1); commands run in a process of their own.
  # Their output goes through a file on the initramfs, which is never swapped.
  (
    exec 3>&-
    eval "$(echo "$code" | base64 -d)"
  ) </dev/null >/run/output 2>&1
  answer "$number" $? </run/output
done
poweroff -f
