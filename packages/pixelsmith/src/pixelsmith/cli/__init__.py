# SPDX-License-Identifier: Apache-2.0
"""The command ``pixelsmith``."""

from pixelsmith.cli.app import app

__all__ = ["app"]
