# SPDX-License-Identifier: Apache-2.0
"""The command ``diffeat``."""

from diffeat.cli.app import app

__all__ = ["app"]
