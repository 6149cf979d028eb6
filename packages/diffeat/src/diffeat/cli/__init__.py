# SPDX-License-Identifier: Apache-2.0
"""The command ``diffeat``."""

from common_kernels.runtime.cli import create_app, run_app

__all__ = ["app", "main"]

app = create_app(
    "diffeat",
    """Features of images from inside a diffusion model.

Every activation has a name. List, extract and rank activations by your labels.

**Examples**

    diffeat demo
    diffeat names "up-*-cross-q" --model path/to/pipeline
    diffeat extract photos/ --model path/to/pipeline -p Ours-XL -o features/
    diffeat search features/ cat.jpg
    diffeat rank images/ masks/ --model path/to/pipeline --budget 3840
    diffeat properties photos/ --model path/to/pipeline -n "up-*"
    diffeat view cat.jpg dog.jpg --model path/to/pipeline -p Ours-XL --together --kind page
    diffeat match cat.jpg dog.jpg --model path/to/pipeline -p Ours-XL
    diffeat segment photos/ --labelled few/ --masks few-masks/ --model path/to/pipeline -p Ours-XL
    diffeat train SPair-71k --model path/to/sd15 -n "up-*-res-out" -t 50 -t 261 -o hyper/
    diffeat pck SPair-71k --model path/to/pipeline -p Ours-XL
    diffeat presets
""",
)
for name in (
    "demo",
    "names",
    "extract",
    "search",
    "rank",
    "properties",
    "view",
    "match",
    "segment",
    "train",
    "pck",
    "presets",
):
    app.command(f"diffeat.cli.{name}:{name}", name=name)


def main() -> None:
    """Run the command line of this process."""
    raise SystemExit(run_app(app))
