# SPDX-License-Identifier: Apache-2.0
"""Zero-shot tests on images of single things, and retrieval: what words the two towers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip import OPENAI_IMAGENET_TEMPLATES
from shapeworld import Scene, SceneConfig, Split, draw_scene, render
from shapeworld.vocabulary import BACKGROUNDS, COLOURS, MATERIALS, SHAPES
from shapeworld.words import with_article
from torch import Tensor
from torch.nn import functional as F

from recipes.tiny_clip.scenes import SIDE, SINGLE, Facts, shown

TEMPLATES = ("{}", "a photo of {}", "a picture of {}", "there is {}", "this picture shows {}")
NAMES = {
    "shape": SHAPES,
    "colour": tuple(f"{colour} thing" for colour in COLOURS),
    "material": tuple(f"{material} thing" for material in MATERIALS),
    "pair": tuple(f"{colour} {shape}" for colour, shape in product(COLOURS, SHAPES)),
}

Tokenize = Callable[[list[str]], Tensor]
EncodeText = Callable[[Tensor], Tensor]
Wrap = Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class Sample:
    """Rendered scenes.

    Attributes:
        scenes: Rendered scenes.
        images: ``(B, 64, 64, 3)`` uint8.
        facts: Facts that the images show.
    """

    scenes: list[Scene]
    images: NDArray[np.uint8]
    facts: Facts


def render_scenes(seed: int, count: int, split: Split, config: SceneConfig) -> Sample:
    """Render ``count`` scenes of a split."""
    scenes = [draw_scene(seed, i, split=split, config=config) for i in range(count)]
    return Sample(scenes, np.stack([render(scene, SIDE).image for scene in scenes]), shown(scenes))


def single_things(seed: int, count: int, split: Split) -> Sample:
    """Render scenes of one thing."""
    return render_scenes(seed, count, split, SINGLE)


def known_sentences(name: str) -> list[str]:
    """Return a name, or a background, in the sentences of the training."""
    phrase = name if name in BACKGROUNDS and name.endswith("s") else with_article(name)
    return [template.format(phrase) for template in TEMPLATES]


def foreign_sentences(name: str) -> list[str]:
    """Return a name in the eighty sentences that users of CLIP know, of words mostly never heard here."""
    return [template(name) for template in OPENAI_IMAGENET_TEMPLATES]


def class_embeddings(
    names: Sequence[str], encode_text: EncodeText, tokenize: Tokenize, wrap: Wrap = known_sentences
) -> Tensor:
    """Return one unit-norm embedding per name, ``(names, embed_dim)``, the mean over all its sentences."""
    rows = [F.normalize(encode_text(tokenize(wrap(name))), dim=-1).mean(dim=0) for name in names]
    return F.normalize(torch.stack(rows), dim=-1)


def name_accuracies(
    image: Tensor, encode_text: EncodeText, tokenize: Tokenize, facts: Facts, wrap: Wrap = known_sentences
) -> dict[str, float]:
    """Return the share of single things whose shape, colour, material and (colour, shape) pair are named.

    Args:
        image: Unit-norm embeddings, ``(B, embed_dim)``.
        encode_text: Function from tokens to embeddings.
        tokenize: Function from sentences to tokens.
        facts: Facts that the images show.
        wrap: Function from a name to sentences.
    """
    shape, colour, material = torch.from_numpy(facts.things[:, 0]).unbind(dim=1)
    wanted = {"shape": shape, "colour": colour, "material": material, "pair": colour * len(SHAPES) + shape}
    found: dict[str, float] = {}
    for name, names in NAMES.items():
        scores = image @ class_embeddings(names, encode_text, tokenize, wrap).T
        found[name] = (scores.argmax(dim=-1) == wanted[name]).float().mean().item()
    return found


def recall_at_1(image: Tensor, text: Tensor, texts: list[str]) -> dict[str, float]:
    """Return the share of images whose best caption, and of captions whose best image, is the right one.

    Equal captions are right for each other's images.

    Args:
        image: Unit-norm embeddings, ``(B, embed_dim)``.
        text: The same of the captions.
        texts: The captions.
    """
    same = torch.tensor([[one == other for other in texts] for one in texts])
    scores = image @ text.T  # (images, texts)
    rows = torch.arange(len(texts))
    return {
        "image_to_text": same[rows, scores.argmax(dim=1)].float().mean().item(),
        "text_to_image": same[rows, scores.argmax(dim=0)].float().mean().item(),
    }
