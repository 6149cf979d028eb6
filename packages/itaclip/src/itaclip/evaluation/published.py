# SPDX-License-Identifier: Apache-2.0
"""Published results of others, for comparison; none of them was measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from itaclip.methods import METHODS

PAPER = "arXiv 2411.12044"
_KEYS = {method.title: name for name, method in METHODS.items()} | {"Baseline": "vanilla"}


@dataclass(frozen=True, slots=True)
class Published:
    """One published result with the ViT-B/16 of CLIP, unless the setting says otherwise.

    Attributes:
        method: Name of the method.
        setting: Difference from the method's main result, or models that it needs besides CLIP; empty for
            none.
        miou: MIoU in per cent, on the whole validation set.
        source: Publication.
    """

    method: str
    setting: str
    miou: float
    source: str

    @property
    def key(self) -> str:
        """Name of the method in :data:`itaclip.methods.METHODS`; empty if it is not there."""
        return _KEYS.get(self.method, "")


_COLUMNS = ("coco-stuff", "coco-object", "voc21", "context60")
# rows of the paper's tables, columns as above; None where the paper has no number
_Row = tuple[float | None, float | None, float | None, float | None]

_TABLE_1: Mapping[str, tuple[str, _Row]] = {
    "Baseline": ("", (7.1, 8.6, 20.3, 9.0)),
    "ReCo": ("", (14.8, 15.7, 25.1, 19.9)),
    "GroupViT": ("", (15.3, 27.5, 52.3, 18.7)),
    "TCL": ("PAMR", (19.6, 30.4, 55.0, 30.4)),
    "MaskCLIP": ("", (14.6, 20.6, 38.8, 23.2)),
    "CLIP-DIY": ("", (None, 31.0, 59.9, None)),
    "ClearCLIP": ("", (23.9, 33.0, 51.8, 32.6)),
    "SCLIP": ("PAMR", (23.9, 32.1, 61.7, 31.5)),
    "NACLIP": ("PAMR", (25.7, 36.2, 64.1, 35.0)),
    "TagCLIP": ("", (18.7, 33.5, 64.8, None)),
    "CaR": ("Dense-CRF", (None, 36.6, 67.6, 30.5)),
    "ITACLIP": ("", (27.0, 37.7, 67.9, 37.5)),
}
_ITACLIP_SETTINGS: Sequence[tuple[str, str, _Row]] = (
    ("no PAMR", "Table 5", (26.3, 36.4, 65.6, 36.0)),
    ("FFN kept", "Table 3", (26.3, 36.9, 66.3, 36.3)),
    ("stride 224", "Table 7", (25.3, 36.7, 66.1, 36.9)),
    ("stride 112", "Table 7", (26.6, 37.4, 67.1, 37.4)),
    ("stride 56", "Table 7", (26.9, 37.7, 67.9, 37.5)),
    ("no background words", "Table 11", (None, 34.5, None, None)),
    ("q-k attention", "Table 2", (None, None, 19.0, None)),
    ("q-q attention", "Table 2", (None, None, 58.9, None)),
    ("k-k attention", "Table 2", (None, None, 52.2, None)),
    ("v-v attention", "Table 2", (None, None, 57.7, None)),
    ("q-q + v-v attention", "Table 2", (None, None, 64.9, None)),
    ("q-q + k-k + v-v attention", "Table 2", (None, None, 66.4, None)),
    ("ViT-L/14", "Table 10", (None, None, 53.3, None)),
    ("ViT-B/32", "Table 10", (None, None, 56.7, None)),
)
# read in the publication or in the repository of a method
_OTHERS: Sequence[tuple[str, str, str, Mapping[str, float]]] = (
    ("ITACLIP", "", "README of ITACLIP", {"cityscapes": 40.2}),
    (
        "SCLIP",
        "no PAMR",
        "README of SCLIP",
        {
            "voc21": 59.63,
            "context60": 31.74,
            "coco-object": 33.52,
            "coco-stuff": 22.77,
            "cityscapes": 32.34,
            "voc20": 81.54,
            "context59": 34.46,
            "ade20k": 16.45,
        },
    ),
    (
        "NACLIP",
        "PAMR",
        "README of NACLIP",
        {"voc20": 83.03, "context59": 38.35, "cityscapes": 38.27, "ade20k": 19.05},
    ),
    (
        "CorrCLIP",
        "DINO, SAM 2",
        "README of CorrCLIP",
        {
            "voc21": 74.8,
            "context60": 44.2,
            "coco-object": 43.7,
            "coco-stuff": 31.6,
            "cityscapes": 49.4,
            "voc20": 88.8,
            "context59": 48.8,
            "ade20k": 26.9,
        },
    ),
)
# rows with ViT-B of comparisons in the papers of others, as summaries of these quote them
_OF_CORRCLIP, _OF_RFCLIP = "comparison in arXiv 2411.10086", "comparison in arXiv 2511.16170"
_COMPARED: Sequence[tuple[str, str, str, Mapping[str, float]]] = (
    ("ClearCLIP", "", _OF_CORRCLIP, {"cityscapes": 30.0, "ade20k": 16.7}),
    (
        "SC-CLIP",
        "",
        _OF_RFCLIP,
        {
            "voc21": 64.6,
            "context60": 36.8,
            "coco-object": 37.7,
            "coco-stuff": 26.6,
            "cityscapes": 41.0,
            "voc20": 84.3,
            "context59": 40.1,
            "ade20k": 20.1,
        },
    ),
    (
        "RF-CLIP",
        "",
        _OF_RFCLIP,
        {
            "voc21": 64.8,
            "context60": 36.4,
            "coco-object": 37.9,
            "coco-stuff": 26.3,
            "cityscapes": 41.3,
            "voc20": 87.0,
            "context59": 39.8,
            "ade20k": 20.4,
        },
    ),
    (
        "CASS",
        "DINO",
        _OF_RFCLIP,
        {
            "voc21": 65.8,
            "context60": 36.7,
            "coco-object": 37.8,
            "coco-stuff": 26.7,
            "cityscapes": 39.4,
            "voc20": 87.8,
            "context59": 40.2,
            "ade20k": 20.4,
        },
    ),
    (
        "ProxyCLIP",
        "DINO",
        _OF_CORRCLIP,
        {"voc21": 61.3, "context60": 35.3, "coco-object": 37.5, "cityscapes": 38.1, "ade20k": 20.2},
    ),
    (
        "Trident",
        "DINO, SAM",
        _OF_CORRCLIP,
        {"voc21": 67.1, "context60": 38.6, "coco-object": 41.1, "cityscapes": 42.9, "ade20k": 21.9},
    ),
)


def published(dataset: str, *, settings: bool = False) -> list[Published]:
    """Return the published results on a data set, lowest first.

    Args:
        dataset: Name as on the command line.
        settings: Whether to add the paper's own ablations of ITACLIP.

    Source: ITACLIP, arXiv 2411.12044, Table 1 (its numbers for the other methods included) and, with
        ``settings``, Tables 2, 3, 5, 7, 10 and 11; what has another source says so.
    """
    found: list[Published] = []
    if dataset in _COLUMNS:
        column = _COLUMNS.index(dataset)
        for method, (setting, row) in _TABLE_1.items():
            found += _of(method, setting, row[column], f"{PAPER}, Table 1")
        for setting, table, row in _ITACLIP_SETTINGS if settings else ():
            found += _of("ITACLIP", setting, row[column], f"{PAPER}, {table}")
    for method, setting, source, results in (*_OTHERS, *_COMPARED):
        found += _of(method, setting, results.get(dataset), source)
    return sorted(found, key=lambda result: result.miou)


def _of(method: str, setting: str, miou: float | None, source: str) -> list[Published]:
    return [] if miou is None else [Published(method, setting, miou, source)]
