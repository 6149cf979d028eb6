# SPDX-License-Identifier: Apache-2.0
"""The command ``itaclip``."""

from common_kernels.runtime.cli import create_app, run_app
from cyclopts import App

app = create_app(
    "itaclip",
    """Segment images by classes given in words, with CLIP and no training.

**Examples**

    itaclip demo
    itaclip segment photo.jpg -c "cat, dog, sky" -o photo.html --model ViT-B-16 --pretrained openai
    itaclip segment photos/ -r -c "person|man|woman, bicycle" --background -o out/ --model ./my-clip
    itaclip video street.mp4 -c "person, grass, sky" -o segmented.mp4 --model ViT-B-16 --pretrained openai
    itaclip models
""",
)
app.command("itaclip.cli.demo:demo", name="demo")
app.command("itaclip.cli.segment:segment", name="segment")
app.command("itaclip.cli.video:video", name="video")
app.command("itaclip.cli.evaluate:evaluate", name="evaluate")
app.command("itaclip.cli.convert:convert", name="convert")
app.command("itaclip.cli.export:export", name="export")
app.command("itaclip.cli.presets:presets", name="presets")
app.command("itaclip.cli.models:models", name="models")

texts = App(
    name="texts",
    help="""Make, check and show the definitions and synonyms that are mixed into class names.

**Examples**

    itaclip texts show voc21
    itaclip texts make -c "cat, dog, sky" -o animals.yaml --model ./my-instruct-model
    itaclip texts check animals.yaml -c "cat, dog, sky"
""",
)
texts.command("itaclip.cli.texts:make", name="make")
texts.command("itaclip.cli.texts:check", name="check")
texts.command("itaclip.cli.texts:show_texts", name="show")
app.command(texts)


def main() -> None:
    """Run the command line and exit."""
    raise SystemExit(run_app(app))
