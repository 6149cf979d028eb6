# SPDX-License-Identifier: Apache-2.0
"""``README.md`` of every shipped model, in the form of the hub, from what its recipe measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common_kernels.runtime.cli import say
from common_kernels.runtime.publishing import CardOptions, write_card

from recipes.cards import CARDS
from recipes.gates import flat
from recipes.options import Debug

__all__ = ["SHIPPED", "ShippedModel", "cards"]

PACKAGES = Path(__file__).parents[2] / "packages"
Metrics = Mapping[str, float | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedModel:
    """A model inside packages.

    Attributes:
        name: Name by which the packages load it.
        packages: Packages that hold it, each its own copy; the first is named in the card.
        options: What the card says.
        metrics: Returns the figures of its card in ``lab/cards``.
    """

    name: str
    packages: Sequence[str]
    options: CardOptions
    metrics: Callable[[], Metrics]

    @property
    def folders(self) -> list[Path]:
        """Folders of its copies."""
        return [PACKAGES / each / "src" / each / "assets" / self.name for each in self.packages]

    def write(self, folder: Path) -> Path:
        """Write ``README.md`` into a folder, and return it."""
        return write_card(folder, self.options, repo_id=f"owner/{self.name}", metrics=self.metrics())


def _chosen(card: str, names: Mapping[str, str]) -> Callable[[], Metrics]:
    """Return figures by dotted names of a card, under the words of ``names``."""

    def read() -> Metrics:
        figures = flat(json.loads((CARDS / f"{card}.json").read_text("utf-8"))["figures"])
        return {words: f"{figures[name]:.4g}" for name, words in names.items()}

    return read


def _restoration(task: str) -> Callable[[], Metrics]:
    def read() -> Metrics:
        card: dict[str, Any] = json.loads(
            (PACKAGES / "semanir/src/semanir/assets" / f"tiny-{task}" / "card.json").read_text("utf-8")
        )
        return {
            f"PSNR of {row['images']}, {row['setting']}, dB (input {row['input']:.2f})": f"{row['value']:.2f}"
            for row in card["figures"]
        }

    return read


_RESTORERS = {
    task: ShippedModel(
        name=f"tiny-{task}",
        packages=("semanir",),
        options=CardOptions(
            title="Small SemanIR network, trained on dead leaves only",
            library="semanir",
            paper="https://arxiv.org/abs/2405.20008",
            pipeline_tag="image-to-image",
            tags=("image-restoration",),
            usage=f'from semanir import Restorer\n\nrestorer = Restorer.from_pretrained("tiny-{task}")',
        ),
        metrics=_restoration(task),
    )
    for task in ("denoise", "jpeg", "demosaic", "sr-x2", "all")
}
SHIPPED: tuple[ShippedModel, ...] = (
    *_RESTORERS.values(),
    ShippedModel(
        name="tiny-shapes",
        packages=("itaclip",),
        options=CardOptions(
            title="Small CLIP of drawn shapes, in the format of open_clip",
            library="itaclip",
            paper="https://arxiv.org/abs/2411.12044",
            pipeline_tag="zero-shot-image-classification",
            tags=("open_clip", "image-segmentation"),
            usage='from itaclip import ITACLIP\n\nsegmenter = ITACLIP.from_pretrained("tiny-shapes")',
        ),
        metrics=_chosen(
            "tiny-clip",
            {
                "zero_shot.colour": "zero-shot accuracy, colours of drawn scenes",
                "zero_shot.material": "the same, materials",
                "zero_shot.shape": "the same, shapes",
                "unseen_pairs.pair": "the same, pairs of colour and shape that training never shows",
            },
        ),
    ),
    ShippedModel(
        name="tiny-sdxl",
        packages=("pixelsmith", "diffeat"),
        options=CardOptions(
            title="Small pipeline of the architecture of Stable Diffusion XL, trained on drawn scenes",
            library="pixelsmith",
            paper="https://arxiv.org/abs/2406.07251",
            pipeline_tag="text-to-image",
            tags=("diffusers", "diffeat"),
            usage=(
                "from pixelsmith import PixelsmithXLPipeline\n\n"
                'pipeline = PixelsmithXLPipeline.from_pretrained("tiny-sdxl")'
            ),
        ),
        metrics=_chosen(
            "tiny-sdxl",
            {
                "vae_psnr_db": "PSNR of the autoencoder on drawn scenes, dB",
                "colour_percent": "images of one thing with the right colour, %",
                "shape_percent": "the same, the right shape, %",
                "both_colours_percent": "images of two things with both colours, %",
            },
        ),
    ),
    ShippedModel(
        name="vitron-tiny",
        packages=("vitron",),
        options=CardOptions(
            title="Small vision language model that calls specialists, trained on drawn scenes",
            library="vitron",
            paper="https://arxiv.org/abs/2412.19806",
            pipeline_tag="image-text-to-text",
            tags=("image-segmentation", "tool-calling"),
            usage='from vitron import Vitron\n\nmodel = Vitron.from_pretrained("vitron-tiny")',
        ),
        metrics=_chosen(
            "vitron-tiny",
            {
                "test.modules": "right modules",
                "test.instructions": "right calls",
                "conversations.later_right_call": "right calls at turns 2 to 4",
                "test.referring_attribute_ciou": "referring segmentation by attribute, cIoU",
                "test.question_gain": "answers beyond the commonest one of their kind",
            },
        ),
    ),
)


def cards(*, debug: Debug = Debug()) -> None:
    """Write the model card of every shipped model, README.md in its folder, from its figures."""
    for model in SHIPPED:
        for folder in model.folders:
            say(str(model.write(folder)))
