# SPDX-License-Identifier: Apache-2.0
"""The command ``pixelsmith``."""

from common_kernels.runtime.cli import create_app, run_app

app = create_app(
    "pixelsmith",
    """Generate and enlarge images of any size with diffusion models, within the memory of one patch.

**Examples**

    pixelsmith demo
    pixelsmith generate "a harbour at dawn" --size 4096 --model ./sdxl -o harbour.tif
    pixelsmith upscale photo.jpg --scale 4 --prompt "a cat on a wall" --model ./sdxl
    pixelsmith resume harbour.tif.job
""",
)
for name in ("generate", "upscale", "resume", "inspect", "demo"):
    app.command(f"pixelsmith.cli.{name}:{name}", name=name)


def main() -> None:
    """Run the command line and exit."""
    raise SystemExit(run_app(app))
