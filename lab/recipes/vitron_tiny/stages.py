# SPDX-License-Identifier: Apache-2.0
"""Stages in which the small model is trained: what learns, from which tasks, at which rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitron.training import Stage
from vitron.training.stages import Losses, Optimisation, Synergy

__all__ = [
    "COMPOSITE",
    "CONVERSATION",
    "COPIED",
    "EXPLICIT",
    "HARD",
    "NAMED",
    "SEEN",
    "pool_shares",
    "stage_of",
]

COMPOSITE = "composite"  # photographic cut-outs over photographs, see composites.py
CONVERSATION = "conversation"
EXPLICIT = "explicit"  # conversations in which most turns name what they mean
NAMED = "named"  # things of any name, see naming.py
COPIED = "copied"  # requests of words that do not exist, text alone, see naming.py
HARD = "referring_hard"  # phrases of location and relation
# from scratch: what must be seen takes longest to learn, how calls are written is learnt in minutes
JOINT = {
    "caption": 0.05,
    "grounding": 0.02,
    "question": 0.04,
    "region_caption": 0.13,
    "referring_segmentation": 0.27,
    HARD: 0.07,
    "sketch_segmentation": 0.06,
    "editing": 0.07,
    "restoration": 0.01,
    "text_to_image": 0.05,
    "text_to_video": 0.01,
    "image_to_video": 0.02,
    "video_question": 0.01,
    "span_grounding": 0.01,
    "tracking": 0.07,
    "video_editing": 0.01,
    "chains": 0.04,
    "no_call": 0.03,
    CONVERSATION: 0.08,
}
# phrases of place come later, for until objects are told apart they teach nothing
LATER = {HARD: 0.14, "referring_segmentation": 0.12, "region_caption": 0.3, "question": 0.08}
# from a trained model: what the language model itself has to see. Masks are found by the mask head, regions
# are read by the region encoder: a model that does both well may hardly look at the tokens of its image
SEE = {
    "caption": 0.2,
    "grounding": 0.04,
    "question": 0.5,
    "region_caption": 0.06,
    "referring_segmentation": 0.03,
    HARD: 0.03,
    "video_question": 0.05,
    "span_grounding": 0.03,
    CONVERSATION: 0.06,
}
# from a trained model: all tasks again; a question has one word to learn from, so that it needs a large share
POLISH = {
    "caption": 0.035,
    "grounding": 0.02,
    "question": 0.13,
    "region_caption": 0.045,
    "referring_segmentation": 0.04,
    HARD: 0.08,
    "sketch_segmentation": 0.02,
    "editing": 0.04,
    "restoration": 0.01,
    "text_to_image": 0.03,
    "text_to_video": 0.01,
    "image_to_video": 0.03,
    "video_question": 0.02,
    "span_grounding": 0.01,
    "tracking": 0.02,
    "video_editing": 0.02,
    "chains": 0.03,
    "no_call": 0.05,
    NAMED: 0.04,
    COPIED: 0.03,
    CONVERSATION: 0.18,
    EXPLICIT: 0.11,
}

# whether photographs help: the same stage with and without them, whose tower learns, too. Nothing is shipped
PHOTO = {COMPOSITE: 0.4, **{task: 0.6 * share for task, share in POLISH.items()}}
SHARES: Mapping[str, Mapping[str, float]] = {"see": SEE, "polish": POLISH, "whole": POLISH, "photo": PHOTO}
RATES = {"joint": 1.5e-3, "see": 1e-3, "polish": 1e-3, "whole": 5e-4, "photo": 5e-4}  # peaks
LOSSES = Losses(text=1.0, mask=2.0, match=0.5, alignment=0.1, words=1.0)
# a trained model writes most tokens without fault: at weight 1 its text gives a gradient of norm 0.24, masks
# and conditions 0.74 together, a new reader of the signals 7.5
POLISH_LOSSES = Losses(text=8.0, mask=1.5, match=0.3, alignment=0.05, words=0.0)
SEEN = 6.0  # weight of the loss of image tokens, see seeing.py, where a trained model continues
# the tower sees well by then; its share of the time of a step is better spent on conversations
ALL_BUT_TOWER = ("projector", "language_model", "embeddings", "region_encoder", "heads")


def stage_of(
    name: str, steps: int, *, batch_size: int = 64, lr: float | None = None, **synergy: Any
) -> Stage:
    """Return a stage of this recipe.

    Args:
        name: ``joint``: all that there is learns from all tasks, since there is no pretrained language model
            to align with. ``see``: a trained model learns to answer from its image. ``polish``: the same
            model learns all tasks again, many of them in conversations. ``whole``: ``polish`` with the tower.
            ``photo``: ``whole`` with photographic composites. ``synergy``: ``joint`` with a
            discriminator (paper, stage 3), at a lower rate.
        steps: Number of steps.
        batch_size: Conversations of a step.
        lr: Peak learning rate; by default that of the stage.
        synergy: Settings of the discriminator.
    """
    rate = lr or RATES.get(name, 3e-4)
    continues = name in SHARES
    return Stage(
        name=name,
        summary="the small model, all tasks at once",
        train=ALL_BUT_TOWER if name in ("see", "polish") else ("*",),
        losses=POLISH_LOSSES if continues else LOSSES,
        synergy=Synergy.model_validate({"width": 64, "layers": 2, "heads": 4} | synergy),
        optimisation=Optimisation(
            lr=rate,
            groups={} if name in ("see", "polish") else {"vision_tower": rate / 4},
            weight_decay=0.05,
            warmup=0.04,
            steps=steps,
            batch_size=batch_size,
        ),
        tasks=dict(SHARES.get(name, JOINT)),
        tasks_later={} if continues else dict(LATER),
    )


def pool_shares(name: str) -> dict[str, float]:
    """Return the share of each task among the examples that a stage is trained with, over the whole run."""
    stage = stage_of(name, 1)
    shares = {task: (share + stage.tasks_later.get(task, share)) / 2 for task, share in stage.tasks.items()}
    # phrases of location are a third of those drawn, and told apart when they are read
    shares["referring_segmentation"] = max(shares["referring_segmentation"], 2 * shares[HARD])
    shares["referring_segmentation"] += shares.pop(HARD)
    return {task: share / sum(shares.values()) for task, share in shares.items()}
