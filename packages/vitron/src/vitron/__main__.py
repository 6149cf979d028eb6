# SPDX-License-Identifier: Apache-2.0
"""``python -m vitron``."""

from vitron.cli import app

app(prog_name="vitron")
