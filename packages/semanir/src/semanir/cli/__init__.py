# SPDX-License-Identifier: Apache-2.0
"""The command ``semanir``."""

from semanir.cli.app import app

__all__ = ["app"]
