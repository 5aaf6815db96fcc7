# SPDX-License-Identifier: BSD-3-Clause
"""One reserve for the host: what each instance's pool may take, from one moment to the next."""
