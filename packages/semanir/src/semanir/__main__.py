# SPDX-License-Identifier: Apache-2.0
"""``python -m semanir``."""

from semanir.cli import main

main()
