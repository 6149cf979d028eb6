# SPDX-License-Identifier: Apache-2.0
"""The command ``vitron``."""

from vitron.cli.app import app

__all__ = ["app"]
