# SPDX-License-Identifier: Apache-2.0
"""``python -m diffeat``."""

from diffeat.cli import main

main()
