# SPDX-License-Identifier: Apache-2.0
"""Figures of the paper (arXiv 2412.19806), for comparison with ours.

They were measured with a model of seven billion weights whose specialists had been trained on the target
data, by an unpublished recipe. Percentages are written as shares of one.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PUBLISHED", "Published"]


class Published(NamedTuple):
    """One figure.

    Attributes:
        benchmark: Data set and part.
        metric: Name of our score.
        vitron: Figure of the paper.
        without_synergy: Figure of the paper without the discriminator; ``None`` if not given.
        rival: Figure of the best other system in the same table.
        rival_name: Name of that system.
    """

    benchmark: str
    metric: str
    vitron: float
    without_synergy: float | None
    rival: float
    rival_name: str


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "referring_segmentation": (
        Published("RefCOCO val", "ciou", 0.755, 0.731, 0.747, "NExT-Chat"),
        Published("RefCOCO testA", "ciou", 0.795, 0.775, 0.789, "NExT-Chat"),
        Published("RefCOCO testB", "ciou", 0.722, 0.703, 0.711, "LISA"),
        Published("RefCOCO+ val", "ciou", 0.667, 0.650, 0.660, "GRES"),
        Published("RefCOCO+ testA", "ciou", 0.725, 0.704, 0.719, "NExT-Chat"),
        Published("RefCOCO+ testB", "ciou", 0.580, 0.565, 0.577, "GRES"),
        Published("RefCOCOg val", "ciou", 0.679, 0.661, 0.670, "NExT-Chat"),
        Published("RefCOCOg test", "ciou", 0.689, 0.673, 0.685, "LISA"),
    ),
    "referring_box": (
        Published("RefCOCO val", "acc@0.5", 0.909, None, 0.887, "MiniGPT-v2"),
        Published("RefCOCO testA", "acc@0.5", 0.932, None, 0.916, "MiniGPT-v2"),
        Published("RefCOCO testB", "acc@0.5", 0.893, None, 0.853, "MiniGPT-v2"),
    ),
    "video_grounding": (
        Published("VidSTG", "miou", 0.395, 0.352, 0.342, "PG-Video-LLaVA"),
        Published("HC-STVG", "miou", 0.314, 0.277, 0.283, "PG-Video-LLaVA"),
    ),
    "video_segmentation": (
        Published("DAVIS 2017 test-dev", "j_and_f", 0.842, 0.821, 0.828, "ISVOS"),
        Published("DAVIS 2017 test-dev", "j", 0.815, 0.802, 0.793, "ISVOS"),
        Published("DAVIS 2017 test-dev", "f", 0.867, 0.857, 0.862, "ISVOS"),
    ),
    "region_caption": (
        Published("RefCOCOg", "meteor", 0.180, 0.150, 0.166, "Osprey"),
        Published("RefCOCOg", "cider", 1.116, 1.030, 1.083, "Osprey"),
    ),
    "vqa": (
        Published("OKVQA", "accuracy", 0.594, 0.574, 0.578, "MiniGPT-v2"),
        Published("GQA", "accuracy", 0.621, 0.604, 0.601, "MiniGPT-v2"),
    ),
    "text_to_video": (Published("MSR-VTT", "clipsim", 0.3682, None, 0.3085, "NExT-GPT"),),
    "image_editing": (
        Published("MagicBrush", "clip_direction", 0.142, 0.130, 0.135, "Emu-Edit"),
        Published("MagicBrush", "clip_image", 0.910, 0.806, 0.897, "Emu-Edit"),
        Published("MagicBrush", "clip_text", 0.274, 0.196, 0.263, "NT-Inv"),
        Published("MagicBrush", "l1", 0.047, 0.083, 0.052, "Emu-Edit"),
    ),
}
