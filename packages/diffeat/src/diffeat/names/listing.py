# SPDX-License-Identifier: Apache-2.0
"""Every activation of a denoiser, with shape and cost, without weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from diffeat.hooks.maps import Scores
from diffeat.hooks.recorder import Recorder, Sink
from diffeat.names.dit import is_transformer, transformer_taps
from diffeat.names.generic import module_taps
from diffeat.names.globs import matching
from diffeat.names.grammar import ActivationName
from diffeat.names.probe import dry_inputs
from diffeat.names.properties import Flag, flags_of
from diffeat.names.sources import Blueprint, blueprint
from diffeat.names.taps import Tap
from diffeat.names.unet import is_unet, unet_taps


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """One activation of a model and its cost.

    Attributes:
        name: Name of the activation.
        shape: Shape of one image's activation, ``(C, h, w)``, or ``(heads, h, w, keys)`` for a map; ``None``
            if only names are listed.
        bytes: Memory of one image's activation.
        flop_share: Share of the denoiser's FLOP up to the activation, in (0, 1]: the cost of a pass that
            stops there.
        family: Family in the paper's taxonomy.
        flags: ``"noisy"``, ``"high-frequency"``, ``"local"`` after the paper's three properties; ``"map"``,
            ``"text"`` for activations without image shape; ``"ours"`` for those missing in the authors' code.
    """

    name: ActivationName
    shape: tuple[int, ...] | None
    bytes: int | None
    flop_share: float | None
    family: str
    flags: frozenset[Flag]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {
            "name": str(self.name),
            "shape": None if self.shape is None else list(self.shape),
            "bytes": self.bytes,
            "flop_share": self.flop_share,
            "family": self.family,
            "flags": sorted(self.flags),
        }


def taps_of(model: nn.Module) -> tuple[Tap, ...]:
    """Every tap of a denoiser in execution order, without the fallback by module path.

    Args:
        model: A denoiser; its weights are not read.
    """
    if is_unet(model):
        return tuple(unet_taps(model))
    return tuple(transformer_taps(model)) if is_transformer(model) else ()


def list_activations(
    source: object,
    *,
    size: int | tuple[int, int] | str | None = "native",
    glob: str | Sequence[str] = "*",
    bytes_per_value: int = 2,
    with_text: bool = False,
) -> list[Activation]:
    """List the activations of a denoiser in execution order, from its config alone.

    Args:
        source: A diffusers model or pipeline, a config with ``"_class_name"``, or the path or hub id of a
            model or pipeline. Weights are neither read nor loaded.
        size: Image size in pixels, a side or ``(height, width)``; ``"native"`` is the native size of the
            model; ``None`` lists names without shapes and costs.
        glob: Pattern or patterns of the listed names, see :func:`diffeat.names.matching`.
        bytes_per_value: Bytes per value of the stored dtype; 2 for fp16.
        with_text: Whether to list activations on text tokens.

    Raises:
        LookupError: If a pattern matches nothing.
        ValueError: If the model has no named activations.

    Examples:
        >>> config = {"_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768}
        >>> len(list_activations(config, size=None))
        197
    """
    plan = blueprint(source)
    taps = taps_of(plan.model) or tuple(module_taps(plan.model))
    if not taps:
        raise ValueError(f"{type(plan.model).__name__} has no modules to read activations from")
    shown = [tap for tap in taps if tap.is_listed or (with_text and tap.name.is_text)]
    wanted = set(matching([tap.name for tap in shown], glob))
    shown = [tap for tap in shown if tap.name in wanted]
    if size is None:
        return [_activation(tap, None, None, bytes_per_value) for tap in shown]
    found, total = measured(plan, shown, size)
    return [
        _activation(tap, shape, flops / total, bytes_per_value)
        for tap in shown
        for shape, flops in (found[tap.name],)
    ]


def _activation(
    tap: Tap, shape: tuple[int, ...] | None, share: float | None, bytes_per_value: int
) -> Activation:
    size = None if shape is None else prod(shape) * bytes_per_value
    return Activation(
        name=tap.name, shape=shape, bytes=size, flop_share=share, family=tap.name.family, flags=flags_of(tap)
    )


def measured(
    plan: Blueprint, taps: Iterable[Tap], size: int | tuple[int, int] | str
) -> tuple[dict[ActivationName, tuple[tuple[int, ...], int]], int]:
    """Return the shape of one image and the FLOP up to each tap, and the FLOP of the whole pass.

    Args:
        plan: The denoiser on the meta device.
        taps: Activations to measure.
        size: Pixels, a side or ``(height, width)``, or ``"native"``.

    Raises:
        ValueError: If the size does not fit the model.
    """
    from torch.utils.flop_counter import FlopCounterMode  # pulls in the compiler

    height, width = latent_size(plan, size)
    inputs, geometry = dry_inputs(plan.model, height, width, text_length=plan.text_length)
    with FlopCounterMode(display=False) as counter:
        costs = _Costs(counter.get_total_flops)
        recorder = Recorder(plan.model, taps, costs, geometry=geometry)
        with torch.no_grad(), recorder:
            plan.model(**inputs)
        total = counter.get_total_flops()
    if recorder.missing:
        raise ValueError(
            f"{type(plan.model).__name__} never computes {', '.join(map(str, recorder.missing))}"
        )
    return costs.found, total


def latent_size(plan: Blueprint, size: int | tuple[int, int] | str) -> tuple[int, int]:
    """Rows and columns of the latent of an image of ``size`` pixels."""
    if isinstance(size, str):
        if size != "native":
            raise ValueError(f"size must be pixels, (height, width), 'native' or None, got {size!r}")
        sample = getattr(getattr(plan.model, "config", None), "sample_size", None)
        sides = sample if isinstance(sample, list | tuple) else (sample, sample)
        default = 1024 // plan.factor
        return int(sides[0] or default), int(sides[1] or default)
    height, width = (size, size) if isinstance(size, int) else size
    if height % plan.factor or width % plan.factor or min(height, width) < plan.factor:
        raise ValueError(
            f"size must be a positive multiple of {plan.factor} pixels both ways, got {height}x{width}"
        )
    return height // plan.factor, width // plan.factor


class _Costs(Sink):
    """Records shapes of activations, and the FLOP up to each."""

    def __init__(self, flops: Callable[[], int]) -> None:
        self.found: dict[ActivationName, tuple[tuple[int, ...], int]] = {}
        self._flops = flops

    def take(self, tap: Tap, tensor: Tensor, call: int) -> None:
        self.found[tap.name] = (tuple(tensor.shape[1:]), self._flops())

    def compute_map(self, tap: Tap, scores: Scores, rows: slice, columns: slice, batch: int) -> Tensor:
        queries, keys = scores.size
        heads = scores.q.shape[1] if scores.q is not None else scores.probs[0].shape[0] // batch
        kept = len(range(queries)[rows]), len(range(keys)[columns])
        return torch.empty(batch, heads, *kept, device="meta")


__all__ = ["Activation", "list_activations", "measured", "taps_of"]
