# SPDX-License-Identifier: Apache-2.0
"""``python -m vitron``."""

from vitron.cli import main

main()
