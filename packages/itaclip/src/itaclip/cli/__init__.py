# SPDX-License-Identifier: Apache-2.0
"""The command ``itaclip``."""

from itaclip.cli.app import app

__all__ = ["app"]
