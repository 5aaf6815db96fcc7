#!/bin/busybox sh
# The first process of a guest that only shows that it boots.
# SPDX-License-Identifier: BSD-3-Clause
echo "preswapd: this guest boots"
/bin/busybox reboot -f
