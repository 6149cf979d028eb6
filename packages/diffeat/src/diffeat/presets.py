# SPDX-License-Identifier: Apache-2.0
"""The paper's selections, its pools of candidates, and its rules as filters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from diffeat.names.grammar import ActivationName, Names


@dataclass(frozen=True, slots=True)
class Selection:
    """Activations of one model.

    Attributes:
        model: Architecture of the names: ``"SD1.5"`` (also 2.1), ``"SDXL"`` or ``"Playground v2"``,
            which has the modules of SDXL.
        names: Names in execution order; pools use globs.
        channels: Sum of channels at full size, means of maps included; ``None`` for pools.
    """

    model: str
    names: tuple[str, ...]
    channels: int | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """A named selection, over one model or several.

    Attributes:
        name: Name in the paper or in the authors' configurations.
        parts: Selection of each model.
        source: Source of the selection.
    """

    name: str
    parts: tuple[Selection, ...]
    source: str

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of a preset over one model.

        Raises:
            ValueError: If the preset spans several models.
        """
        if len(self.parts) != 1:
            models = ", ".join(part.model for part in self.parts)
            raise ValueError(
                f"preset {self.name!r} spans {models}, and a run has one model: extract the names of each, "
                "which 'diffeat presets' lists and part(model) returns, and join them with diffeat.fusion"
            )
        return self.parts[0].names

    @property
    def channels(self) -> int:
        """Channels of all parts together."""
        return sum(part.channels or 0 for part in self.parts)

    def part(self, model: str) -> Selection:
        """The selection of one model.

        Raises:
            LookupError: If the preset has none for ``model``.
        """
        for part in self.parts:
            if part.model == model:
                return part
        models = ", ".join(part.model for part in self.parts)
        raise LookupError(f"preset {self.name!r} has parts for {models}, got {model!r}")


_OURS_XL = (
    "up-level0-repeat0-vit-block5-out",
    "up-level0-repeat0-vit-block7-out",
    "up-level1-repeat0-vit-block0-cross-q",
    "up-level1-repeat0-vit-block0-out",
)
_SMALL = (
    "up-level2-repeat1-vit-block0-cross-q",
    "up-level2-upsampler-out",
    "up-level3-repeat0-vit-block0-self-k",
)
# two sides of 77 text tokens each at 512 pixels
_MEAN_MAPS = "up-cross-attn"

_ALL = (
    Preset(
        "Legacy-v1.5",
        (
            Selection(
                "SD1.5",
                (
                    "up-level0-upsampler-out",
                    "up-level1-upsampler-out",
                    "up-level2-upsampler-out",
                    "up-level3-repeat2-vit-out",
                ),
                3520,
            ),
        ),
        "arXiv 2410.03558, App. B",
    ),
    Preset(
        "Legacy-XL",
        (
            Selection(
                "SDXL",
                ("up-level0-upsampler-out", "up-level1-upsampler-out", "up-level2-repeat2-res-out"),
                2240,
            ),
        ),
        "arXiv 2410.03558, App. B",
    ),
    Preset(
        "Ours-v1.5",
        (
            Selection(
                "SD1.5",
                (
                    "up-level1-repeat1-vit-block0-cross-q",
                    "up-level1-repeat2-res-out",
                    "up-level2-repeat1-vit-block0-cross-q",
                    "up-level3-repeat0-vit-block0-self-k",
                ),
                3520,
            ),
        ),
        "arXiv 2410.03558, App. B",
    ),
    Preset("Ours-XL", (Selection("SDXL", _OURS_XL, 3840),), "arXiv 2410.03558, App. B"),
    Preset(
        "Ours-XL-t",
        (
            Selection("SDXL", _OURS_XL, 3840),
            Selection("SD1.5", ("up-level1-repeat1-vit-block0-cross-q", *_SMALL, _MEAN_MAPS), 3034),
            Selection("Playground v2", ("up-level0-repeat0-vit-block3-out",), 1280),
        ),
        "authors' configurations for correspondence and Horse-21",
    ),
    Preset(
        "Ours-XL-t-scenes",
        (
            Selection("SDXL", (*_OURS_XL, "up-level1-upsampler-out"), 4480),
            Selection(
                "Playground v2",
                (
                    "up-level0-repeat0-vit-block5-out",
                    "up-level1-repeat0-vit-block0-cross-q",
                    "up-level1-upsampler-out",
                ),
                2560,
            ),
        ),
        "authors' configurations for ADE20K and Cityscapes",
    ),
    Preset("Small-v1.5", (Selection("SD1.5", _SMALL, 1600),), "authors' configurations"),
    Preset(
        "VPD",
        (
            Selection(
                "SD1.5",
                ("up-level0-repeat1-res-out", "up-level1-repeat1-vit-out", "up-level2-repeat1-vit-out"),
                3200,
            ),
        ),
        "authors' reimplementation of VPD",
    ),
    Preset("DIFT", (Selection("SD1.5", ("up-level1-upsampler-out",), 1280),), "arXiv 2306.03881"),
)
PRESETS = {preset.name: preset for preset in _ALL}

_XL_BLOCKS = "vit-block[013579]-{cross-q,out}"
POOLS = {
    "SD1.5": Selection(
        "SD1.5",
        (
            "up-level1-repeat?-{res-out,vit-block0-cross-q,vit-block0-out,vit-out}",
            "up-level2-repeat?-{res-out,vit-block0-cross-q,vit-block0-out,vit-out}",
            "up-level2-repeat2-vit-block0-self-{q,k}",
            "up-level2-upsampler-out",
            "up-level3-repeat?-vit-block0-self-{q,k}",
        ),
    ),
    "SDXL": Selection(
        "SDXL",
        (
            "up-level0-repeat?-{res-out,vit-out}",
            f"up-level0-repeat?-{_XL_BLOCKS}",
            "up-level0-upsampler-out",
            "up-level1-repeat?-{res-out,vit-out}",
            "up-level1-repeat?-vit-block?-{cross-q,out}",
            "up-level1-repeat2-vit-block?-self-k",
        ),
    ),
}
# SDXL's 279 candidates of the paper: every ViT of ten blocks is reduced to six
CANDIDATES_XL = (
    "*-res-{increment,out}",
    "*-vit-out",
    "*-{downsampler,upsampler}-out",
    "*-vit-block[013579]-{self-q,self-k,cross-q,ffn-inner,out}",
)


def preset(name: str) -> Preset:
    """Return a preset.

    Args:
        name: One of :data:`PRESETS`; case does not matter.

    Raises:
        LookupError: If there is no preset of this name.

    Examples:
        >>> preset("Ours-XL").channels
        3840
    """
    for known, found in PRESETS.items():
        if known.lower() == name.lower():
            return found
    raise LookupError(f"presets are {', '.join(PRESETS)}, got {name!r}")


def expand_presets(names: Names) -> list[str]:
    """Expand the presets among names and globs.

    Raises:
        ValueError: If a preset spans several models.

    Examples:
        >>> expand_presets(["unet-in", "DIFT"])
        ['unet-in', 'up-level1-upsampler-out']
    """
    several = [names] if isinstance(names, str | ActivationName) else names
    known = {name.lower() for name in PRESETS}
    return [
        text
        for name in map(str, several)
        for text in (preset(name).names if name.lower() in known else (name,))
    ]


def asymmetric_noise(names: Iterable[ActivationName], *, clean: float = 0.5) -> list[ActivationName]:
    """Property 1: keep the activations with the least diffusion noise, the first part of the up stage.

    Args:
        names: All names of a U-Net, which determine the length of the up stage.
        clean: Share of the up stage's module pairs treated as clean.

    Source: arXiv 2410.03558, Sec. 4.1; that the noise returns halfway is an observation of the paper.
    """
    known = list(names)
    pairs = sorted(
        {(name.level or 0, name.repeat) for name in known if name.stage == "up" and name.repeat is not None}
    )
    last = pairs[: max(1, round(clean * len(pairs)))][-1] if pairs else (0, 0)
    return [
        name
        for name in known
        if name.stage == "up" and (name.level or 0, last[1] if name.repeat is None else name.repeat) <= last
    ]


def granularity(names: Iterable[ActivationName]) -> list[ActivationName]:
    """Property 2: keep activations that differ within one resolution: outputs and queries to the text.

    Source: arXiv 2410.03558, Sec. 4.2.
    """
    return [
        name for name in names if name.kind in {"out", "cross-q"} and name.part in {"res", "vit", "upsampler"}
    ]


def locality(names: Iterable[ActivationName], *, keep: Iterable[ActivationName] = ()) -> list[ActivationName]:
    """Property 3: drop self-attention, which shows the pixel grid, except where noise would be worse.

    Args:
        names: Names of a U-Net.
        keep: Region whose self-attention queries and keys stay; the paper keeps those of the late up stage.

    Source: arXiv 2410.03558, Sec. 4.3.
    """
    late = set(keep)
    return [
        name
        for name in names
        if not name.kind.startswith("self-") or (name in late and name.kind in {"self-q", "self-k"})
    ]


def smooth(names: Iterable[ActivationName]) -> list[ActivationName]:
    """Drop increments, hidden feed-forward activations and values, which carry high-frequency noise.

    Source: arXiv 2410.03558, App. E.
    """
    return [name for name in names if name.kind not in {"increment", "ffn-inner", "self-v"}]
