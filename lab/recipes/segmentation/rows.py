# SPDX-License-Identifier: Apache-2.0
"""One way to segment, and how to get another from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from itaclip import AttentionConfig, ITACLIPConfig
from shapeworld.vocabulary import BACKGROUNDS

from recipes.segmentation.prior import Prior
from recipes.segmentation.texts import Aux

# lengths that the paper gives for windows of 224 px, for windows of 64 px, as the demo has them
LENGTHS = ("resize_short", "crop", "stride", "blur_kernel", "blur_sigma", "pamr_dilations")
FITTED = {name: getattr(ITACLIPConfig.preset("tiny-shapes"), name) for name in LENGTHS} | {"batch_size": 160}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to segment.

    Attributes:
        config: Everything but the texts.
        templates: What names are put into; see :func:`itaclip.text.get_templates`.
        aux: Auxiliary texts, mixed in with the share ``config.alpha``.
        background: Names for the background.
        prior: Prior of whole windows; none if ``None``.
    """

    config: ITACLIPConfig
    templates: str | tuple[str, ...] = "imagenet"
    aux: Aux | None = None
    background: tuple[str, ...] = BACKGROUNDS
    prior: Prior | None = None


BASE = Row(config=ITACLIPConfig.preset("itaclip", **FITTED))


def vary(row: Row = BASE, **changes: object) -> Row:
    """Return the row with fields of its attention, of its configuration or of its own replaced."""
    own = {key: value for key, value in changes.items() if key in Row.__slots__}
    inner = {key: value for key, value in changes.items() if key in AttentionConfig.__slots__}
    outer = {key: value for key, value in changes.items() if key not in own | inner}
    attention = replace(row.config.attention, **inner)
    return replace(row, config=replace(row.config, attention=attention, **outer), **own)


# refinement and the five versions take most of the time, and have tables of their own
UNREFINED = vary(pamr_steps=0)
BARE = vary(UNREFINED, branches=("identity",))


def preset(name: str) -> Row:
    """Return a preset of itaclip at the size of the model."""
    return Row(config=ITACLIPConfig.preset(name, **FITTED))


def with_prior(row: Row = BASE, **prior: Any) -> Row:
    """Return the row with the prior of whole windows, which is not in the paper.

    Args:
        row: Without it.
        **prior: Fields of :class:`Prior`; its weight measured best for itaclip on the scenes of the search.
    """
    return vary(row, prior=Prior(**prior))


def chosen() -> Row:
    """Return the default of the shipped model."""
    return Row(config=ITACLIPConfig.preset("tiny-shapes"))
