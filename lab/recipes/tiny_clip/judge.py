# SPDX-License-Identifier: Apache-2.0
"""Holds the shipped model against its gate on scenes it never saw; the card has the misses too."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from common_kernels.runtime.cli import say, show
from common_kernels.runtime.files import write_json
from open_clip.model import CLIP
from PIL import Image
from rich.table import Table
from shapeworld import SceneConfig, render
from shapeworld.vocabulary import BACKGROUNDS, Attribute
from torch import Tensor

from recipes.cards import CARDS, read_card
from recipes.gates import SEEDS, Requirement, add_reading, fresh_seeds, mean, missed
from recipes.options import Flag, Processor
from recipes.tiny_clip.dense import VARIANTS, dense_embeddings, dense_figures
from recipes.tiny_clip.scenes import MIXED, SIDE, strict_caption
from recipes.tiny_clip.ship import ASSETS, WEIGHTS, training_facts
from recipes.tiny_clip.zero_shot import (
    NAMES,
    Sample,
    Tokenize,
    class_embeddings,
    foreign_sentences,
    name_accuracies,
    recall_at_1,
    render_scenes,
    single_things,
)

REQUIREMENTS = (
    Requirement(figure="zero_shot.colour", at_least=0.97),
    Requirement(figure="zero_shot.material", at_least=0.90),
)
TARGETS = (
    Requirement(figure="zero_shot.shape", at_least=0.95),
    Requirement(figure="unseen_pairs.pair", at_least=0.80),
)
MAX_BYTES = 6_000_000
# more things than in training would say more of the world than of the model
SEGMENTED = SceneConfig(num_things=(0.3, 0.4, 0.3))
ATTRIBUTES: tuple[Attribute, ...] = ("colour", "shape", "material")
CAVEAT = "Trained and judged on drawn scenes only; a handful of words; one training seed, no error bars."


class Judged:
    """A model loaded by open_clip from a local folder, as any user loads it.

    Args:
        folder: With ``open_clip_config.json``, weights and tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        name = f"local-dir:{folder}"
        self.model: CLIP
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(name)
        self.model.eval()
        self.tokenize: Tokenize = open_clip.get_tokenizer(name)

    def inputs(self, sample: Sample) -> list[Tensor]:
        """Return the images as batches for the visual tower, each ``(b, 3, 64, 64)``."""
        return list(
            torch.stack([self.preprocess(Image.fromarray(image)) for image in sample.images]).split(128)
        )

    def embed(self, sample: Sample) -> Tensor:
        """Return the unit-norm embeddings of images, ``(B, embed_dim)``."""
        return torch.cat([self.model.encode_image(x, normalize=True) for x in self.inputs(sample)])

    def names(self, names: tuple[str, ...]) -> Tensor:
        """Return the embeddings of names, ``(names, embed_dim)``."""
        return class_embeddings(names, self.model.encode_text, self.tokenize)

    def accuracies(self, sample: Sample, *, foreign: bool = False) -> dict[str, float]:
        """Return the zero-shot accuracies on single things."""
        arguments = (self.embed(sample), self.model.encode_text, self.tokenize, sample.facts)
        found = name_accuracies(*arguments, foreign_sentences) if foreign else name_accuracies(*arguments)
        return {name: round(value, 4) for name, value in found.items()}


@torch.inference_mode()
def measure(judged: Judged, seed: int, singles: int, mixed: int, segmented: int) -> dict[str, Any]:
    """Return all figures of a model.

    Args:
        judged: The model.
        seed: Random seed of the scenes, all of the splits ``test`` and ``novel``.
        singles: Scenes of one thing, for each split.
        mixed: Scenes of one to three things for retrieval, captions in held-out phrasing.
        segmented: Scenes of one to three things, labelled pixel by pixel.
    """
    test, novel = single_things(seed, singles, "test"), single_things(seed, singles, "novel")
    seen, unseen = judged.accuracies(test), judged.accuracies(novel)
    crowd = render_scenes(seed + 1, mixed, "test", MIXED)
    rng = np.random.default_rng(seed)
    texts = [strict_caption(scene, rng, "held_out") for scene in crowd.scenes]
    text = judged.model.encode_text(judged.tokenize(texts), normalize=True)
    return {
        "zero_shot": {name: seen[name] for name in ("shape", "colour", "material", "pair")},
        "zero_shot_foreign_sentences": judged.accuracies(test, foreign=True),
        "unseen_pairs": unseen,
        "recall_at_1": {
            name: round(value, 4) for name, value in recall_at_1(judged.embed(crowd), text, texts).items()
        },
        "dense": _dense(judged, render_scenes(seed + 2, segmented, "test", SEGMENTED)),
    }


def _dense(judged: Judged, sample: Sample) -> dict[str, dict[str, dict[str, float]]]:
    batches = [dense_embeddings(judged.model.visual, x) for x in judged.inputs(sample)]
    tokens = {name: torch.cat([batch[name] for batch in batches]) for name in VARIANTS}
    renderings = [render(scene, SIDE) for scene in sample.scenes]
    truth = {
        attribute: torch.from_numpy(
            np.stack([rendering.semantic(attribute) for rendering in renderings])
        ).long()
        for attribute in ATTRIBUTES
    }
    words = {attribute: judged.names(NAMES[attribute]) for attribute in ATTRIBUTES}
    return dense_figures(tokens, words, judged.names(BACKGROUNDS), truth)


def verdict(runs: Sequence[dict[str, Any]], size: int) -> dict[str, Any]:
    """Return what the gate says: each requirement and target, and a sentence for each miss.

    Args:
        runs: Figures of each seed.
        size: Bytes of the weights.
    """
    heavy = [f"weights have {size} of at most {MAX_BYTES} bytes"] if size > MAX_BYTES else []
    return {
        "requirements": [str(each) for each in REQUIREMENTS],
        "targets": [str(each) for each in TARGETS],
        "missed_requirements": [*missed(REQUIREMENTS, runs), *heavy],
        "missed_targets": missed(TARGETS, runs),
    }


def describe_training(training: dict[str, Any]) -> str:
    """Return the training in a sentence or two, from the facts that travel with the weights."""
    plan = training["plan"]
    ended = "at its limit" if training["contrast_from"] == plan["warm_steps"] else "when shapes were known"
    return (
        f"{training['steps']} steps of {plan['batch_size']}, that is {training['images_seen']} drawn images, "
        f"in {training['training_minutes']} minutes on {training['threads']} thread of one CPU. "
        f"Classification of the class token alone up to step {training['contrast_from']}, where it ended "
        f"{ended}; from there the contrastive loss, with classification beside it, whose share falls to 0. "
        f"Of the images {plan['grey_share']:.0%} have no colour; captions that name none meet only these."
    )


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """Return the few facts that travel with the weights, for ``itaclip models``."""
    return {
        "task": "names colours, materials and shapes of drawn things, in sentences of 60 words",
        "parameters": report["parameters"],
        "zero_shot": report["figures"]["zero_shot"],
        "statement": report["caveat"],
    }


def judge(
    folder: Path = ASSETS / "tiny-shapes",
    /,
    *,
    card: Path = CARDS / "tiny-clip.json",
    seed: int = 2024,
    seeds: int = SEEDS,
    singles: int = 400,
    mixed: int = 100,
    segmented: int = 70,
    write: Flag = False,
    processor: Processor = Processor(),
) -> int:
    """Measure the shipped model on fresh scenes; exit 1 if a requirement is missed at its 95 % bound.

    Args:
        folder: Folder of the model.
        card: Card of the model.
        seed: First random seed of the scenes.
        seeds: Number of seeds.
        singles: Number of scenes of one thing, for each split and seed.
        mixed: Number of scenes for retrieval, for each seed.
        segmented: Number of scenes labelled pixel by pixel, for each seed.
        write: Write the card, and the facts that travel with the weights.
    """
    torch.set_num_threads(processor.threads)
    weights = folder / WEIGHTS
    judged = Judged(folder)
    drawn = fresh_seeds(seed, seeds)
    runs = [measure(judged, each, singles, mixed, segmented) for each in drawn]
    figures, says = mean(runs), verdict(runs, weights.stat().st_size)
    training, digest = training_facts(folder), hashlib.sha256(weights.read_bytes()).hexdigest()
    report = {
        "name": "tiny-clip",
        "file": f"{folder.name}/{WEIGHTS}",
        "sha256": digest,
        "bytes": weights.stat().st_size,
        "parameters": sum(parameter.numel() for parameter in judged.model.parameters()),
        "training_description": describe_training(training)
        if "plan" in training
        else "nothing is known of the training",
        "training": training,
        "judged_on": {"seeds": drawn, "singles": singles, "mixed": mixed, "segmented": segmented},
        "figures": figures,
        "verdict": says,
        "caveat": CAVEAT,
    }
    if write:
        report["readings"] = add_reading(
            read_card(card), seeds=drawn, digest=digest, misses=says["missed_requirements"]
        )
        write_json(card, report)
        write_json(folder / "card.json", summary(report))
    _show(figures)
    for sentence in [*says["missed_requirements"], *says["missed_targets"]]:
        say(f"missed: {sentence}")
    return int(bool(says["missed_requirements"]))


def _show(figures: dict[str, Any]) -> None:
    scores = Table("zero-shot", *NAMES)
    for row in ("zero_shot", "zero_shot_foreign_sentences", "unseen_pairs"):
        scores.add_row(row, *(f"{figures[row][name]:.1%}" for name in NAMES))
    show(scores)
    say(f"R@1 {figures['recall_at_1']}")
    dense = Table("mIoU / on things, %", *ATTRIBUTES)
    for variant in VARIANTS:
        cells = (figures["dense"][attribute][variant] for attribute in ATTRIBUTES)
        dense.add_row(variant, *(f"{cell['miou']:.1f} / {cell['accuracy_on_things']:.0f}" for cell in cells))
    show(dense)
