# SPDX-License-Identifier: BSD-3-Clause
"""The checksum of what lies on disk, and of what it is.

hashlib loads OpenSSL to offer its hashes too: more than half a MiB that each instance would have
for itself.  Here is where it has this one from.
"""

try:
    from _blake2 import blake2b
except ImportError:  # another Python
    from hashlib import blake2b

__all__ = ["blake2b"]
