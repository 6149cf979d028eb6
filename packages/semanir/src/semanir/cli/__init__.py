# SPDX-License-Identifier: Apache-2.0
"""The command ``semanir``."""

from common_kernels.runtime.cli import create_app, run_app

__all__ = ["app", "main"]

app = create_app(
    "semanir",
    """Restore images with SemanIR, a transformer that shares key semantics.

**Examples**

    semanir demo
    semanir restore noisy.jpg -o clean.png --compare
    semanir restore holiday/ -o restored/ --recursive
    semanir degrade jpeg photo.png -o blocky.png --quality 10
    semanir fit --config denoise-color-tiny -o runs/a --data.train "[photos/]" --data.validation "[holdout/]"
    semanir evaluate --task denoise --sigma 25 --data CBSD68/
    semanir explain photo.jpg --at 210,95 -o patches.png
    semanir export tiny-denoise -o denoise.onnx
    semanir models
""",
)
app.command("semanir.cli.restore:restore", name="restore")
app.command("semanir.cli.degrade:app", name="degrade")
app.command("semanir.cli.fit:fit", name="fit")
app.command("semanir.cli.evaluate:evaluate", name="evaluate")
app.command("semanir.cli.explain:explain", name="explain")
app.command("semanir.cli.export:export", name="export")
app.command("semanir.cli.convert:convert", name="convert")
app.command("semanir.cli.models:models", name="models")
app.command("semanir.cli.demo:demo", name="demo")


def main() -> None:
    """Run the command line and exit."""
    raise SystemExit(run_app(app))
