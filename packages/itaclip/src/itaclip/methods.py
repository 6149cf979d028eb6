# SPDX-License-Identifier: Apache-2.0
"""Published methods: what each does to the image tower, and its authors' settings for each data set.

Plain values only; :mod:`itaclip.presets` makes configurations of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Fields = Mapping[str, object]
Names = Literal["all", "sclip", "first"]

DATASETS = ("voc21", "context60", "coco-object", "coco-stuff", "cityscapes", "voc20", "context59", "ade20k")

# layers 7, 8 and 10 of 12, for towers of any depth
RELATIVE_LAYERS = (7 / 12, 8 / 12, 10 / 12)
# larger than any image after resizing: one window, enlarged to the resized image before the original size
_ONE_WINDOW: Fields = {"crop": 2048, "stride": 2048}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A published method, apart from the images it is run on.

    Attributes:
        title: Name in publications.
        attention: Fields of :class:`itaclip.AttentionConfig`.
        fields: Fields of :class:`itaclip.ITACLIPConfig` for any image.
        datasets: Further fields of both for each data set that its authors publish settings for; those of
            the attention below ``"attention"``.
        names: Names of a class that are used: all of the shipped list, those of the lists of SCLIP, or the
            first only.
        texts: Whether definitions or synonyms are part of the method.
        source: Publication of the settings.
        differs: What is left out or taken from elsewhere; empty if nothing.
    """

    title: str
    attention: Fields
    fields: Fields = field(default_factory=dict[str, object])
    datasets: Mapping[str, Fields] = field(default_factory=dict[str, Fields])
    names: Names = "all"
    texts: bool = False
    source: str
    differs: str = ""


_MIDDLE: Fields = {"mid_layers": (7, 8, 10)}
_ITACLIP: Mapping[str, Fields] = {
    "voc21": {
        "stride": 28,
        "logit_scale": 60.0,
        "prob_threshold": 0.1,
        "area_threshold": 0.1,
        "lam": 0.7,
        "alpha": 0.05,
        "attention": _MIDDLE,
    },
    "context60": {
        "stride": 28,
        "logit_scale": 55.0,
        "prob_threshold": 0.1,
        "alpha": 0.15,
        "attention": _MIDDLE,
    },
    "coco-object": {
        "stride": 28,
        "logit_scale": 50.0,
        "prob_threshold": 0.1,
        "alpha": 0.1,
        "attention": _MIDDLE,
    },
    "coco-stuff": {"stride": 28, "resize_short": 448, "attention": _MIDDLE},
    "cityscapes": {"stride": 28, "resize_short": 560, "lam": 0.7, "alpha": 0.05, "attention": _MIDDLE},
}
_SCLIP: Mapping[str, Fields] = {
    "voc21": {"logit_scale": 65.0, "prob_threshold": 0.1, "area_threshold": 0.1},
    "context60": {"logit_scale": 50.0, "prob_threshold": 0.1},
    "coco-object": {"logit_scale": 50.0, "prob_threshold": 0.1},
    "coco-stuff": {"resize_short": 448},
    "cityscapes": {"resize_short": 560},
    "voc20": {},
    "context59": {},
    "ade20k": {},
}
_SCCLIP: Mapping[str, Fields] = {
    **_SCLIP,
    "voc21": {"logit_scale": 50.0, "prob_threshold": 0.15, "area_threshold": 0.1},
    "context60": {"prob_threshold": 0.15},
    "coco-object": {"logit_scale": 55.0, "prob_threshold": 0.35},
    "coco-stuff": {},
}
_NACLIP: Mapping[str, Fields] = {
    "voc21": {**_ONE_WINDOW, "prob_threshold": 0.1},
    "context60": {"prob_threshold": 0.1},
    "coco-object": {"prob_threshold": 0.1},
    "coco-stuff": {},
    "cityscapes": {"resize_short": 560},
    "voc20": _ONE_WINDOW,
    "context59": {},
    "ade20k": {},
}
_CLEARCLIP: Mapping[str, Fields] = {
    "voc21": {"prob_threshold": 0.5},
    "context60": {"prob_threshold": 0.15},
    "coco-object": {"prob_threshold": 0.4},
    "cityscapes": {"crop": 224},
    "voc20": {},
    "context59": {},
}
# shares of the middle layers in the mixture
_RESCLIP = {
    "voc21": 0.3,
    "context60": 0.3,
    "coco-object": 0.4,
    "coco-stuff": 0.4,
    "cityscapes": 0.2,
    "voc20": 0.6,
    "context59": 0.4,
    "ade20k": 0.3,
}
_PROXYCLIP: Mapping[str, Fields] = {
    "voc21": {"prob_threshold": 0.2},
    "context60": {"prob_threshold": 0.15},
    "coco-object": {"prob_threshold": 0.25},
    "coco-stuff": {},
    "cityscapes": {"resize_short": 448, "crop": 224},
    "ade20k": {"resize_short": 448},
}
# as ProxyCLIP but for the sets without a background
_CORRCLIP: Mapping[str, Fields] = {**_PROXYCLIP, "voc20": {}, "context59": {}}
# one version of every window, no refinement, no closing
_PLAIN: Fields = {"branches": ("identity",), "pamr_steps": 0, "closing": False}
_CLEARCLIP_FIELDS: Fields = {
    **_PLAIN,
    "resize_short": 448,
    "crop": 448,
    "stride": 224,
    "logit_scale": 50.0,
}
_PROXYCLIP_FIELDS: Fields = {**_PLAIN, "crop": 336}
_LAST_BLOCK: Fields = {"mid_layers": (), "residual": False}

METHODS: Mapping[str, Method] = {
    "itaclip": Method(
        title="ITACLIP",
        attention={"mid_layers": RELATIVE_LAYERS},
        datasets=_ITACLIP,
        texts=True,
        source="arXiv 2411.12044, Table 9 and the published configurations",
    ),
    "fast": Method(
        title="ITACLIP with two versions of every window",
        attention={"mid_layers": RELATIVE_LAYERS},
        fields={"branches": ("identity", "hflip")},
        datasets=_ITACLIP,
        texts=True,
        source="arXiv 2411.12044",
        differs="which has five versions",
    ),
    "sclip": Method(
        title="SCLIP",
        attention={**_LAST_BLOCK, "residual": True, "ffn": True},
        fields=_PLAIN,
        datasets=_SCLIP,
        names="sclip",
        source="arXiv 2312.01597, published configurations",
    ),
    "naclip": Method(
        title="NACLIP",
        attention={**_LAST_BLOCK, "pairs": ("kk",), "locality": 5.0},
        fields={**_PLAIN, "pamr_steps": 10},
        datasets=_NACLIP,
        names="sclip",
        source="arXiv 2404.08181, published configurations",
    ),
    "clearclip": Method(
        title="ClearCLIP",
        attention={**_LAST_BLOCK, "pairs": ("qq",)},
        fields=_CLEARCLIP_FIELDS,
        datasets=_CLEARCLIP,
        names="first",
        source="arXiv 2407.12442, published configurations",
    ),
    "resclip": Method(
        title="ResCLIP",
        attention={
            **_LAST_BLOCK,
            "pairs": ("kk",),
            "locality": 5.0,
            "mid_layers": (6 / 12, 7 / 12, 8 / 12, 9 / 12),
            "mid_pairs": ("qk",),
            "mid_weight": 0.3,
            "gain": 2.0,
        },
        fields=_PLAIN,
        datasets={
            name: {
                **({"prob_threshold": 0.1} if name in ("voc21", "context60", "coco-object") else {}),
                **({"resize_short": 560} if name == "cityscapes" else {}),
                **(_ONE_WINDOW if name in ("voc21", "voc20") else {}),
                "attention": {"mid_weight": share},
            }
            for name, share in _RESCLIP.items()
        },
        names="sclip",
        source="arXiv 2411.15851, published configurations",
        differs="without its second pass (semantic feedback)",
    ),
    "scclip": Method(
        title="SC-CLIP",
        attention={"strategy": "scclip"},
        fields=_PLAIN,
        datasets=_SCCLIP,
        names="sclip",
        source="arXiv 2411.15869, published configurations",
    ),
    "maskclip": Method(
        title="MaskCLIP",
        attention={**_LAST_BLOCK, "strategy": "value"},
        fields=_CLEARCLIP_FIELDS,
        datasets=_CLEARCLIP,
        names="first",
        source="arXiv 2407.12442, published configurations, which run MaskCLIP too",
        differs="thresholds are those for ClearCLIP",
    ),
    "gem": Method(
        title="GEM",
        attention={"strategy": "gem"},
        fields=_CLEARCLIP_FIELDS,
        datasets=_CLEARCLIP,
        names="first",
        source="arXiv 2407.12442, published configurations, which run GEM too",
        differs="thresholds are those for ClearCLIP",
    ),
    "proxyclip": Method(
        title="ProxyCLIP",
        attention={"strategy": "proxyclip"},
        fields=_PROXYCLIP_FIELDS,
        datasets=_PROXYCLIP,
        names="first",
        source="arXiv 2408.04883, published configurations",
        differs="windows are not padded to multiples of 56 px",
    ),
    "corrclip": Method(
        title="CorrCLIP",
        attention={"strategy": "corrclip"},
        fields=_PROXYCLIP_FIELDS,
        datasets=_CORRCLIP,
        names="first",
        source="arXiv 2411.10086, published configurations, with EoMT for the regions",
        differs="windows are not padded to multiples of 56 px, the background has one name",
    ),
    "trident": Method(
        title="Trident",
        attention={"strategy": "trident"},
        fields={**_PROXYCLIP_FIELDS, "stride": 224},
        names="first",
        source="arXiv 2411.09219, defaults of the published code",
        differs="without the mask decoder of SAM; how maps of SAM are put together is ours",
    ),
    "vanilla": Method(
        title="CLIP",
        attention={**_LAST_BLOCK, "pairs": ("qk",), "residual": True, "ffn": True},
        fields=_CLEARCLIP_FIELDS,
        datasets={**_CLEARCLIP, "voc21": {"prob_threshold": 0.2}},
        names="first",
        source="arXiv 2407.12442, published configurations, which run plain CLIP too",
        differs="the threshold of VOC21 is the authors' for CLIP, others are those for ClearCLIP",
    ),
    # windows of 64 px and patches of 8 px; sizes have the paper's proportions, the rest scored best on drawn
    # scenes
    "tiny-shapes": Method(
        title="The recipe of the shipped model",
        attention={**_LAST_BLOCK, "strategy": "value"},
        fields={
            "branches": ("identity",),
            "resize_short": 96,
            "crop": 64,
            "stride": 32,
            "blur_kernel": 5,
            "blur_sigma": 1.4,
            "prob_threshold": 0.4,
            "pamr_dilations": (4, 8),
        },
        source="chosen here",
        differs="on drawn scenes",
    ),
}

# sets for which a method's authors publish nothing take over a set that is alike, without its rules for the
# background
_ALIKE: Mapping[str, str] = {"voc20": "voc21", "context59": "context60", "ade20k": "coco-stuff"}
_NO_RULES: Fields = {"prob_threshold": 0.0, "area_threshold": None}


def find_method(name: str) -> Method:
    """Return a method.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in METHODS:
        cure = f"; {name} is a data set, to be named as such beside a method" if name in DATASETS else ""
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {name!r}{cure}")
    return METHODS[name]


def merged_fields(name: str, dataset: str | None = None) -> dict[str, object]:
    """Return the fields of a configuration: those of the method, and over them those of its data set.

    Args:
        name: Method.
        dataset: Data set; ``None`` for any image.

    Raises:
        ValueError: If there is no such method or data set.
    """
    method = find_method(name)
    if dataset is not None and dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
    chosen: Fields = {}
    if dataset is not None and dataset in method.datasets:
        chosen = method.datasets[dataset]
    elif dataset is not None and (alike := _ALIKE.get(dataset, "")) in method.datasets:
        chosen = {**method.datasets[alike], **_NO_RULES}
    attention = chosen.get("attention", {})
    merged = {**method.fields, **chosen}
    merged["attention"] = {**method.attention, **(attention if isinstance(attention, Mapping) else {})}
    return merged


def origin(name: str, dataset: str | None = None) -> tuple[bool, str]:
    """Return whether the method's authors publish just these settings, and a sentence on where they are from.

    Args:
        name: Method.
        dataset: Data set; ``None`` for any image.

    Raises:
        ValueError: If there is no such method.
    """
    method = find_method(name)
    left_out = f", {method.differs}" if method.differs else ""
    if dataset is None:
        return False, f"{method.title} for any image ({method.source}{left_out})"
    if dataset in method.datasets:
        return not method.differs, f"{method.title} on {dataset}: {method.source}{left_out}"
    alike = _ALIKE.get(dataset)
    taken = f"those for {alike}, without its rules" if alike in method.datasets else "those for any image"
    return False, f"there are no published settings of {method.title} for {dataset}: {taken}{left_out}"
