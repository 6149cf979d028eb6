# SPDX-License-Identifier: Apache-2.0
"""Example conversations of the package: the first ones of a test seed, not chosen by their results."""

from __future__ import annotations

import shutil
import tempfile
from itertools import count as count_from
from itertools import islice
from pathlib import Path

from PIL import Image
from vitron.data.example import Example
from vitron.data.files import write_samples
from vitron.data.schema import MaskTarget, Sample, SampleMedia, SampleRegion, Targets
from vitron.protocol.regions import mask_to_region

from recipes.vitron_tiny.conversations import draw_conversation
from recipes.vitron_tiny.tasks import draw_example

__all__ = ["to_sample", "write_demo"]

SEED = 77
TASKS = (
    *("caption", "question", "region_caption", "referring_segmentation", "sketch_segmentation", "editing"),
    *("text_to_image", "text_to_video", "image_to_video", "tracking", "video_editing", "restoration"),
    *("chains", "no_call"),
)


def to_sample(example: Example, name: str, folder: Path) -> Sample:
    """Write the media of an example into a folder, and return its line of the data file.

    Args:
        example: Conversation without masks among its media.
        name: Name of the sample.
        folder: Folder of the files.
    """
    media = list[SampleMedia]()
    for number, each in enumerate(example.media):
        paths = list[str]()
        for at, frame in enumerate(each.frames):
            path = f"{name}-{number}-{at}.png" if each.kind == "video" else f"{name}-{number}.png"
            Image.fromarray(frame).save(folder / path, optimize=True)
            paths.append(path)
        if each.kind == "video":
            media.append(SampleMedia(type="video", path=tuple(paths)))
        else:
            media.append(SampleMedia(type="image", path=paths[0]))
    regions = tuple(
        SampleRegion(
            media=each.media, region=mask_to_region(each.mask, frame=each.frame if each.frame else None)
        )
        for each in example.regions
    )
    masks = tuple(
        MaskTarget(
            call=call,
            media=example.mask_media.get(call, 0),
            masks=tuple(mask_to_region(mask, frame=at) for at, mask in enumerate(found)),
        )
        for call, found in example.masks.items()
    )
    return Sample(
        id=name,
        task=example.task,
        messages=example.messages,
        media=tuple(media),
        regions=regions,
        targets=Targets(masks=masks),
        split="test",
        group=example.group,
    )


def write_demo(out: Path, *, count: int = 1, conversations: int = 2) -> int:
    """Replace the example conversations.

    Args:
        out: Folder of the package's assets.
        count: Number of conversations of each task.
        conversations: Number of conversations of several turns.

    Returns:
        Number of conversations.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = [
            to_sample(draw_example(task, SEED, index, split="test"), f"{task}-{index}", folder)
            for task in TASKS
            for index in range(count)
        ]
        # a file of conversations has no masks among its media
        several = (draw_conversation(SEED, index, split="test") for index in count_from(0))
        unmasked = (each for each in several if all(medium.kind != "masks" for medium in each.media))
        samples += [
            to_sample(each, f"conversation-{index}", folder)
            for index, each in enumerate(islice(unmasked, conversations))
        ]
        shutil.rmtree(out, ignore_errors=True)
        return write_samples(samples, out, source=folder)
