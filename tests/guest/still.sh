#!/bin/busybox sh
# A guest's /init that never swaps itself, nor what it runs, so that it goes on where swapped pages are lost.
# Who is to swap leaves for the other cgroup: echo 0 >/cgroup/cgroup.procs
# SPDX-License-Identifier: BSD-3-Clause
/bin/busybox mkdir -p /cgroup
/bin/busybox mount -t cgroup2 none /cgroup
echo +memory >/cgroup/cgroup.subtree_control
/bin/busybox mkdir /cgroup/still
echo 0 >/cgroup/still/memory.swap.max
echo 0 >/cgroup/still/cgroup.procs
exec /bin/busybox sh /init.commands
