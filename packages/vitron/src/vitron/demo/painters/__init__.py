# SPDX-License-Identifier: Apache-2.0
"""Toy specialists that draw with NumPy: deterministic, small, and for drawn images only.

They stand in for large models where a whole chain is to be tried. They know some colours, five shapes, and
things that are of one colour on a plain background; a photograph is beyond them.
"""

from vitron.demo.painters.animator import ToyAnimator
from vitron.demo.painters.painter import ToyPainter
from vitron.demo.painters.segmenter import ToySegmenter
from vitron.specialists.registry import SpecialistRegistry

__all__ = ["ToyAnimator", "ToyPainter", "ToySegmenter", "toy_registry"]


def toy_registry() -> SpecialistRegistry:
    """Return a registry with the toys alone: results are the same whatever else is installed."""
    registry = SpecialistRegistry()
    for factory in (ToySegmenter, ToyPainter, ToyAnimator):
        registry.register(factory().spec.name, factory)
    return registry
