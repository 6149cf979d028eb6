# SPDX-License-Identifier: Apache-2.0
"""The rows of the study: the paper's tables at the size of tiny-clip, and what goes beyond them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shapeworld.vocabulary import BACKGROUNDS

from recipes.segmentation.rows import BARE, BASE, UNREFINED, Row, chosen, preset, vary, with_prior
from recipes.segmentation.scenes import CLASSES, Kind, View
from recipes.tiny_clip.zero_shot import TEMPLATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows that stand together.

    Attributes:
        title: Title of the table.
        rows: Rows by name; the others are compared with the first.
        source: Source of the other numbers; empty if there are none.
        beside: Those numbers, mIoU in per cent, by the name of the row.
        kinds: Kinds of classes.
        views: Views of the scenes.
    """

    title: str
    rows: Mapping[str, Row]
    source: str = ""
    beside: Mapping[str, str]
    kinds: tuple[Kind, ...] = ("colour", "shape")
    views: tuple[View, ...] = ("windows",)


ALL_KINDS = tuple(CLASSES)
NO_SOURCE: Mapping[str, str] = {}
TRAINED = tuple(template.replace("{}", "a {}") for template in TEMPLATES)


def tables() -> dict[str, Table]:
    """Return all tables by a short name."""
    return {
        "methods": _methods(),
        "attention": _attention(),
        "ffn": Table(
            title="Feed-forward half of the last block",
            rows={"dropped": BARE, "kept": vary(BARE, ffn=True)},
            source="Table 3, VOC21",
            beside={"dropped": "67.9", "kept": "66.3"},
        ),
        "middle": _middle(),
        "pamr": Table(
            title="Refinement by PAMR",
            rows={
                "10 steps, distances 4 and 8": BASE,
                "off": vary(pamr_steps=0),
                "5 steps, distances 4 and 8": vary(pamr_steps=5),
                "20 steps, distances 4 and 8": vary(pamr_steps=20),
                "10 steps, distances 1 and 2": vary(pamr_dilations=(1, 2)),
                "10 steps, distances 2 and 4": vary(pamr_dilations=(2, 4)),
                "10 steps, distances 8 and 16": vary(pamr_dilations=(8, 16)),
            },
            source="Table 5, VOC21",
            beside={"off": "65.6", "10 steps, distances 8 and 16": "67.9"},
        ),
        "images": _images(),
        "texts": _texts(),
        "size": _size(),
        "stride": _stride(),
        "shares": _shares(),
        "background": Table(
            title="Words for the background",
            rows={
                "all five grounds": BARE,
                "one word, of no ground": vary(BARE, background=("picture",)),
                "one ground": vary(BARE, background=("leaves",)),
                "grounds, photo and picture": vary(BARE, background=(*BACKGROUNDS, "photo", "picture")),
            },
            source="Table 11, COCO-Object",
            beside={"all five grounds": "37.7", "one word, of no ground": "34.5"},
        ),
        "residual": _residual(),
        "gain": _gain(),
        "beyond": Table(
            title="Other switches",
            rows={
                "itaclip": BARE,
                "no closing": vary(BARE, closing=False),
                "no residual": vary(BARE, residual=False),
                "no residual, no closing": vary(BARE, residual=False, closing=False),
            },
            beside=NO_SOURCE,
        ),
        "prior": _prior(),
        "first run": _first_run(),
    }


def _methods() -> Table:
    return Table(
        title="Methods",
        rows={
            "itaclip": BASE,
            "vanilla": preset("vanilla"),
            "maskclip": preset("maskclip"),
            "clearclip": preset("clearclip"),
            "sclip": preset("sclip"),
            "naclip": preset("naclip"),
            "naclip, 3 patches instead of 5": vary(preset("naclip"), locality=3.0),
            "resclip": preset("resclip"),
            "itaclip, no residual": vary(residual=False),
            "maskclip + images, PAMR, closing": vary(strategy="value", residual=False),
            "tiny-shapes (chosen)": chosen(),
        },
        source="Table 1, VOC21; SCLIP, NACLIP and ITACLIP with PAMR",
        beside={
            "vanilla": "20.3",
            "maskclip": "38.8",
            "clearclip": "51.8",
            "sclip": "61.7",
            "naclip": "64.1",
            "itaclip": "67.9",
        },
        kinds=ALL_KINDS,
    )


def _attention() -> Table:
    sums = {
        "q-q + k-k": ("qq", "kk"),
        "q-k": ("qk",),
        "q-q": ("qq",),
        "k-k": ("kk",),
        "v-v": ("vv",),
        "q-q + v-v": ("qq", "vv"),
        "k-k + v-v": ("kk", "vv"),
        "q-q + k-k + v-v": ("qq", "kk", "vv"),
        "all four": ("qq", "kk", "vv", "qk"),
    }
    return Table(
        title="Maps that are summed, last block and middle",
        rows={name: vary(BARE, pairs=pairs) for name, pairs in sums.items()},
        source="Table 2, VOC21",
        beside={
            "q-k": "19.0",
            "q-q": "58.9",
            "k-k": "52.2",
            "v-v": "57.7",
            "q-q + k-k": "67.9",
            "q-q + v-v": "64.9",
            "q-q + k-k + v-v": "66.4",
        },
        kinds=ALL_KINDS,
    )


def _middle() -> Table:
    rows = {
        "4, 4, 5 (relative depth of 7, 8, 10)": BARE,
        "none": vary(BARE, mid_layers=()),
        "4": vary(BARE, mid_layers=(4,)),
        "5": vary(BARE, mid_layers=(5,)),
        "4, 5": vary(BARE, mid_layers=(4, 5)),
        "3, 4, 5": vary(BARE, mid_layers=(3, 4, 5)),
        "2, 3, 4, 5": vary(BARE, mid_layers=(2, 3, 4, 5)),
        "1, 2": vary(BARE, mid_layers=(1, 2)),
        "3, 4, 5 as q-k maps": vary(BARE, mid_layers=(3, 4, 5), mid_pairs=("qk",)),
    }
    return Table(
        title="Middle layers, of 6 blocks",
        rows=rows,
        source="Table 4, VOC21 without PAMR, a tower of 12 blocks",
        beside={
            "none": "65.0",
            "4": "65.4 (7), 65.5 (8)",
            "4, 4, 5 (relative depth of 7, 8, 10)": "65.6 (7, 8, 10)",
            "2, 3, 4, 5": "65.5 (7, 8, 9, 10)",
        },
    )


def _images() -> Table:
    rows = {
        "all five": UNREFINED,
        "identity": vary(UNREFINED, branches=("identity",)),
        "identity, gray": vary(UNREFINED, branches=("identity", "gray")),
        "identity, blur": vary(UNREFINED, branches=("identity", "blur")),
        "identity, gray, blur": vary(UNREFINED, branches=("identity", "gray", "blur")),
        "identity, flips": vary(UNREFINED, branches=("identity", "vflip", "hflip")),
        "identity, blur, flips": vary(UNREFINED, branches=("identity", "blur", "vflip", "hflip")),
    }
    return Table(
        title="Image engineering",
        rows=rows,
        source="Table 6, COCO-Stuff, with auxiliary texts",
        beside={"identity": "24.8", "all five": "25.4"},
    )


def _texts() -> Table:
    rows = {
        "80 templates of ImageNet": BARE,
        "the name alone": vary(BARE, templates="plain"),
        "a photo of a": vary(BARE, templates="photo"),
        "5 sentences of the training": vary(BARE, templates=TRAINED),
    }
    for aux in ("known words", "English"):
        for alpha in (0.1, 0.2, 0.5):
            rows[f"auxiliary, {aux}, alpha {alpha}"] = vary(BARE, aux=aux, alpha=alpha)
    return Table(
        title="Texts",
        rows=rows,
        source="Table 6, COCO-Stuff, without image engineering",
        beside={"80 templates of ImageNet": "24.5", "auxiliary, English, alpha 0.2": "24.8"},
    )


def _size() -> Table:
    methods = {
        "itaclip": BARE,
        "itaclip, no residual": vary(BARE, residual=False),
        "vanilla": preset("vanilla"),
        "maskclip": preset("maskclip"),
    }
    return Table(
        title="Short side of the image, windows of 64 px",
        rows={
            f"{name}, {short} px": vary(row, resize_short=short)
            for name, row in methods.items()
            for short in (96, 64, 128)
        },
        beside=NO_SOURCE,
        kinds=ALL_KINDS,
    )


def _stride() -> Table:
    return Table(
        title="Stride of the windows",
        rows={
            "half a window": BARE,
            "a window": vary(BARE, stride=64),
            "a quarter": vary(BARE, stride=16),
            "an eighth": vary(BARE, stride=8),
        },
        source="Table 7, VOC21",
        beside={"a window": "66.1", "half a window": "67.1", "a quarter": "67.9", "an eighth": "67.9"},
    )


def _shares() -> Table:
    rows = {"lambda 0.75": UNREFINED}
    for lam in (0.0, 0.5, 0.6, 1.0):
        rows[f"lambda {lam}"] = vary(UNREFINED, lam=lam)
    for lam in (0.75, 0.6, 0.5):
        for alpha in (0.1, 0.15, 0.2):
            rows[f"lambda {lam}, alpha {alpha}"] = vary(UNREFINED, lam=lam, alpha=alpha, aux="known words")
    return Table(
        title="Shares lambda and alpha",
        rows=rows,
        source="Table 8, Context60 without PAMR",
        beside={
            "lambda 0.75, alpha 0.15": "36.0",
            "lambda 0.6, alpha 0.15": "35.9",
            "lambda 0.5, alpha 0.15": "35.8",
            "lambda 0.75, alpha 0.2": "35.9",
            "lambda 0.5, alpha 0.2": "35.7",
            "lambda 0.6, alpha 0.2": "35.9",
            "lambda 0.6, alpha 0.1": "35.9",
            "lambda 0.5, alpha 0.1": "35.8",
        },
    )


def _residual() -> Table:
    bare = vary(BARE, residual=False)
    return Table(
        title="Without the residual",
        rows={
            "itaclip, with residual": BARE,
            "no residual": bare,
            "no residual, feed-forward kept": vary(bare, ffn=True),
            "no residual, no middle layers": vary(bare, mid_layers=()),
            "no residual, q-k": vary(bare, pairs=("qk",)),
            "no residual, q-q": vary(bare, pairs=("qq",)),
            "no residual, k-k": vary(bare, pairs=("kk",)),
            "no residual, v-v": vary(bare, pairs=("vv",)),
            "no residual, own value only": vary(bare, strategy="value"),
            "own value only, with residual": vary(BARE, strategy="value"),
        },
        beside=NO_SOURCE,
    )


def _gain() -> Table:
    return Table(
        title="Factor on the maps, with residual",
        rows={
            "itaclip": BARE,
            "x 0.5, rows that sum to 1": vary(BARE, gain=0.5),
            "x 2": vary(BARE, gain=2.0),
            "x 4": vary(BARE, gain=4.0),
            "q-q x 2": vary(BARE, pairs=("qq",), gain=2.0),
            "k-k x 2": vary(BARE, pairs=("kk",), gain=2.0),
            "v-v x 2": vary(BARE, pairs=("vv",), gain=2.0),
            "q-k x 2": vary(BARE, pairs=("qk",), gain=2.0),
            "q-k x 4": vary(BARE, pairs=("qk",), gain=4.0),
        },
        beside=NO_SOURCE,
    )


def _prior() -> Table:
    return Table(
        title="Prior of whole windows",
        rows={
            "itaclip": BASE,
            "itaclip, x 0.25": with_prior(weight=0.25),
            "itaclip, x 1": with_prior(weight=1.0),
            "itaclip, x 4": with_prior(),
            "itaclip, x 4, windows of half a side": with_prior(sides=(0.5,)),
            "itaclip, x 4, the image as one window": with_prior(sides=(1.0,)),
            "vanilla": preset("vanilla"),
            "vanilla, x 4": with_prior(preset("vanilla")),
            "tiny-shapes": chosen(),
            "tiny-shapes, x 0.25": with_prior(chosen(), weight=0.25),
            "tiny-shapes, x 4": with_prior(chosen()),
        },
        beside=NO_SOURCE,
        kinds=ALL_KINDS,
    )


def _first_run() -> Table:
    """Return the last blocks of the first run, nothing else switched on, each scene one window."""
    vanilla = vary(preset("vanilla"), resize_short=0)
    sclip = vary(vanilla, pairs=("qq", "kk"))
    itaclip = vary(sclip, ffn=False, mid_layers=(3, 4, 5))
    one = {"q-q": ("qq",), "k-k": ("kk",), "v-v": ("vv",)}
    rows = {
        "q-k, FFN (vanilla)": vanilla,
        "q-k": vary(vanilla, ffn=False),
        **{f"{name}, FFN": vary(vanilla, pairs=pairs) for name, pairs in one.items()},
        **{name: vary(vanilla, pairs=pairs, ffn=False) for name, pairs in one.items()},
        "q-q + k-k, FFN (SCLIP)": sclip,
        "q-q + k-k": vary(sclip, ffn=False),
        "q-q + k-k, middle 3 4 5": itaclip,
        "middle 3 4 5 as q-k maps": vary(itaclip, mid_pairs=("qk",)),
        "q-q, no residual (ClearCLIP)": vary(preset("clearclip"), resize_short=0),
        "q-q + k-k, no residual": vary(sclip, ffn=False, residual=False),
        "q-q + k-k, middle 3 4 5, no residual": vary(itaclip, residual=False),
        "own value, no residual (MaskCLIP)": vary(preset("maskclip"), resize_short=0),
        "q-q + k-k, middle 3 4 5, x 2": vary(itaclip, gain=2.0),
        "q-q + k-k, middle 3 4 5, x 4": vary(itaclip, gain=4.0),
        "q-q x 2": vary(vanilla, pairs=("qq",), ffn=False, gain=2.0),
    }
    return Table(
        title="Last blocks alone",
        rows=rows,
        source="first run, colours, whole pictures of 48 px, another model",
        beside={
            "q-k, FFN (vanilla)": "6.1",
            "q-k": "5.8",
            "q-q, FFN": "6.5",
            "k-k, FFN": "8.5",
            "v-v, FFN": "9.2",
            "q-q": "6.3",
            "k-k": "7.9",
            "v-v": "8.5",
            "q-q + k-k, FFN (SCLIP)": "13.6",
            "q-q + k-k": "13.3",
            "q-q + k-k, middle 3 4 5": "13.4",
            "middle 3 4 5 as q-k maps": "8.3",
            "q-q, no residual (ClearCLIP)": "18.0",
            "q-q + k-k, no residual": "22.1",
            "q-q + k-k, middle 3 4 5, no residual": "21.9",
            "own value, no residual (MaskCLIP)": "22.3",
            "q-q + k-k, middle 3 4 5, x 2": "24.1",
            "q-q + k-k, middle 3 4 5, x 4": "25.6",
            "q-q x 2": "9.2",
        },
        views=("whole",),
    )
