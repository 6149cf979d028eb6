# SPDX-License-Identifier: Apache-2.0
"""``python -m pixelsmith``, which is how ``accelerate launch -m pixelsmith`` starts the command."""

from pixelsmith.cli import main

main()
