# SPDX-License-Identifier: Apache-2.0
"""``python -m itaclip``."""

from itaclip.cli import main

main()
