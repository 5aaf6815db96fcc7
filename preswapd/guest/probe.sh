#!/bin/busybox sh
# The first process of a guest that only shows that it boots.
echo "preswapd: this guest boots"
/bin/busybox reboot -f
