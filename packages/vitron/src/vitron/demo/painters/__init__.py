# SPDX-License-Identifier: Apache-2.0
"""Toy specialists that draw with NumPy: deterministic, small, and for drawn images only.

They replace large models when a whole chain is tested. They know some colours, five shapes, and
objects of one colour on a plain background; they do not work on photographs.
"""

from vitron.demo.painters.animator import ToyAnimator
from vitron.demo.painters.painter import ToyPainter
from vitron.demo.painters.segmenter import ToySegmenter
from vitron.specialists.registry import SpecialistRegistry

__all__ = ["ToyAnimator", "ToyPainter", "ToySegmenter", "toy_registry"]


def toy_registry() -> SpecialistRegistry:
    """Return a registry of the toy specialists alone: results do not depend on what else is installed."""
    registry = SpecialistRegistry()
    for factory in (ToySegmenter, ToyPainter, ToyAnimator):
        registry.register(factory().spec.name, factory)
    return registry
