# SPDX-License-Identifier: Apache-2.0
"""``python -m itaclip``, which is how ``accelerate launch -m itaclip`` starts the command."""

from itaclip.cli import app

app(prog_name="itaclip")
