# SPDX-License-Identifier: Apache-2.0
"""A small data set of drawn images and videos, with every task that a stage of training asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitron.data.converters.common import assistant_message, call, user_message
from vitron.data.files import write_samples
from vitron.data.schema import MaskTarget, Sample, SampleMedia, SampleRegion, Targets
from vitron.demo.painters.shapes import blank, shape_mask, shifted
from vitron.demo.painters.words import SHAPES
from vitron.protocol.contract import BoxRegion, Invocation
from vitron.protocol.media import Artefact, write_media
from vitron.protocol.messages import Message
from vitron.protocol.regions.convert import mask_to_box, mask_to_region
from vitron.protocol.regions.text import format_frames, format_region
from vitron.specialists.words import COLOURS

__all__ = ["DRAWN_TASKS", "write_drawn_data"]

_SIZE, _FRAMES, _SIDE, _MOTION = 64, 4, 20, 8


class _Scene(NamedTuple):
    """An image of two things, and a video in which the first moves to the right."""

    names: tuple[str, str]
    images: tuple[str, str]  # before and after the first thing was removed
    frames: tuple[str, ...]
    masks: tuple[NDArray[np.bool_], ...]  # of the first thing in each frame; the first is that of the image

    @property
    def box(self) -> BoxRegion:
        return mask_to_box(self.masks[0])

    @property
    def image(self) -> SampleMedia:
        return SampleMedia(path=self.images[0])

    @property
    def video(self) -> SampleMedia:
        return SampleMedia(type="video", path=self.frames)


class _Turn(NamedTuple):
    user: Message
    assistant: Message
    media: SampleMedia | None = None
    region: BoxRegion | None = None
    targets: Targets = Targets()


def _masks(scene: _Scene, count: int) -> Targets:
    """Return the masks of the call."""
    regions = tuple(
        mask_to_region(mask, frame=None if count == 1 else at) for at, mask in enumerate(scene.masks[:count])
    )
    return Targets(masks=(MaskTarget(masks=regions),))


def _calling(
    made: Invocation, text: str, *, medium: SampleMedia | None = None, targets: Targets | None = None
) -> _Turn:
    said = user_message(text, media=int(medium is not None))
    return _Turn(said, assistant_message("", made), medium, targets=targets or Targets())


def _caption(s: _Scene) -> _Turn:
    text = f"a {s.names[0]} and a {s.names[1]}"
    said = user_message("Describe the image in one sentence.")
    return _Turn(said, assistant_message(text), s.image, targets=Targets(captions=(text,)))


def _video_caption(s: _Scene) -> _Turn:
    text = f"a {s.names[0]} moves to the right"
    said = user_message("Describe the video in one sentence.")
    return _Turn(said, assistant_message(text), s.video, targets=Targets(captions=(text,)))


def _region_caption(s: _Scene) -> _Turn:
    said = user_message("Describe what is in this region.", regions=1)
    targets = Targets(captions=(f"a {s.names[0]}",))
    return _Turn(said, assistant_message(f"a {s.names[0]}"), s.image, s.box, targets)


def _dialogue(s: _Scene) -> _Turn:
    return _Turn(user_message("Hello!", media=0), assistant_message("Hello! What may I do for you?"))


def _question(s: _Scene) -> _Turn:
    colour, shape = s.names[0].split()
    said = user_message(f"What colour is the {shape}? Answer with one word or phrase.")
    return _Turn(said, assistant_message(colour), s.image, targets=Targets(answers=(colour,)))


def _referring_segmentation(s: _Scene) -> _Turn:
    made = call("image_segmentation", "segment", f"the {s.names[0]}")
    return _calling(made, f"Segment the {s.names[0]}.", medium=s.image, targets=_masks(s, 1))


def _image_editing(s: _Scene) -> _Turn:
    made = call("image_editing", "remove", f"the {s.names[0]}")
    targets = _masks(s, 1).model_copy(update={"image": s.images[1]})
    return _calling(made, f"Remove the {s.names[0]}.", medium=s.image, targets=targets)


def _video_segmentation(s: _Scene) -> _Turn:
    made = call("video_segmentation", "track", f"the {s.names[0]}")
    return _calling(made, f"Track the {s.names[0]}.", medium=s.video, targets=_masks(s, _FRAMES))


def _video_editing(s: _Scene) -> _Turn:
    made = call("video_editing", "foreground", f"a blue {s.names[0].split()[1]}")
    return _calling(made, f"Make the {s.names[0]} blue.", medium=s.video, targets=_masks(s, _FRAMES))


def _text_to_image(s: _Scene) -> _Turn:
    return _calling(call("text_to_image", "generate", f"a {s.names[0]}"), f"Draw a {s.names[0]}.")


def _text_to_video(s: _Scene) -> _Turn:
    made = call("text_to_video", "generate", f"a {s.names[0]} that moves")
    return _calling(made, f"Make a video of a {s.names[0]} that moves.")


def _image_to_video(s: _Scene) -> _Turn:
    made = call("image_to_video", "animate", f"the {s.names[0]} moves right")
    return _calling(made, f"Let the {s.names[0]} move to the right.", medium=s.image)


def _restoration(s: _Scene) -> _Turn:
    return _calling(call("restoration", "denoise", "the image"), "Remove the noise.", medium=s.image)


def _referring_box(s: _Scene) -> _Turn:
    said = user_message(f"Where is the {s.names[0]}? Answer with its box.")
    return _Turn(said, assistant_message(format_region(s.box)), s.image, targets=Targets(boxes=(s.box,)))


def _phrase_grounding(s: _Scene) -> _Turn:
    text = f"a {s.names[0]} beside a {s.names[1]}"
    said = user_message(f"Give the box of each phrase: {text}")
    answer = assistant_message(f"a {s.names[0]} {format_region(s.box)}")
    return _Turn(said, answer, s.image, targets=Targets(boxes=(s.box,)))


def _video_grounding(s: _Scene) -> _Turn:
    boxes = tuple(mask_to_box(mask).model_copy(update={"frame": at}) for at, mask in enumerate(s.masks))
    answer = assistant_message(f"{format_region(s.box)} {format_frames((0, _FRAMES - 1))}")
    said = user_message(f"When and where is this: the {s.names[0]} moves")
    return _Turn(said, answer, s.video, targets=Targets(boxes=boxes, span=(0, _FRAMES - 1)))


def _grounded_question(s: _Scene) -> _Turn:
    colour, shape = s.names[0].split()
    said = user_message(f"What colour is the {shape}? Give the box, then answer with one word or phrase.")
    targets = Targets(boxes=(s.box,), answers=(colour,))
    return _Turn(said, assistant_message(f"{format_region(s.box)} {colour}"), s.image, targets=targets)


_MAKERS: dict[str, Callable[[_Scene], _Turn]] = {
    "caption": _caption,
    "video_caption": _video_caption,
    "region_caption": _region_caption,
    "dialogue": _dialogue,
    "vqa": _question,
    "referring_segmentation": _referring_segmentation,
    "image_editing": _image_editing,
    "video_segmentation": _video_segmentation,
    "video_editing": _video_editing,
    "text_to_image": _text_to_image,
    "text_to_video": _text_to_video,
    "image_to_video": _image_to_video,
    "restoration": _restoration,
    "referring_box": _referring_box,
    "phrase_grounding": _phrase_grounding,
    "video_grounding": _video_grounding,
    "grounded_question": _grounded_question,
}
DRAWN_TASKS = tuple(_MAKERS)


def write_drawn_data(folder: Path, *, scenes: int = 4, seed: int = 0) -> int:
    """Write a data set of drawn scenes: one conversation of each of :data:`DRAWN_TASKS` about each scene.

    Every stage of training and every command for data can be tried with it; it is too small to learn from.

    Args:
        folder: Folder of the data set.
        scenes: Number of scenes, each an image and a video of 4 frames.
        seed: Random seed.

    Returns:
        Number of conversations.
    """
    return write_samples(_samples(folder, scenes, seed), folder)


def _samples(folder: Path, scenes: int, seed: int) -> Iterator[Sample]:
    rng = np.random.default_rng(seed)
    for number in range(scenes):
        scene = _draw(folder, f"{number:03d}", rng)
        for task, make in _MAKERS.items():
            turn = make(scene)
            yield Sample(
                id=f"{task}-{number}",
                task=task,
                messages=(turn.user, turn.assistant),
                media=() if turn.media is None else (turn.media,),
                regions=() if turn.region is None else (SampleRegion(region=turn.region),),
                targets=turn.targets,
                seed=seed,
            )


def _draw(folder: Path, name: str, rng: np.random.Generator) -> _Scene:
    colours = rng.choice([each for each in COLOURS if each not in ("white", "blue")], size=2, replace=False)
    shapes = rng.choice(SHAPES, size=2, replace=False)
    row = int(rng.integers(2, _SIZE - 2 * _SIDE - 4))
    first, second = (shape_mask(str(shape), _SIDE, _SIDE) for shape in shapes)
    masks = tuple(shifted(first, row, 4 + at * _MOTION, (_SIZE, _SIZE)) for at in range(_FRAMES))
    empty = blank(_SIZE, _SIZE)
    empty[shifted(second, _SIZE - _SIDE - 2, _SIZE - _SIDE - 4, empty.shape)] = COLOURS[str(colours[1])]
    paths = list[str]()
    for at, mask in enumerate((*masks, None)):
        frame = empty.copy()
        if mask is not None:
            frame[mask] = COLOURS[str(colours[0])]
        file = write_media(Artefact("image", frame), folder / "images", f"{name}-{at}")
        paths.append(file.relative_to(folder).as_posix())
    return _Scene(
        names=(f"{colours[0]} {shapes[0]}", f"{colours[1]} {shapes[1]}"),
        images=(paths[0], paths[-1]),
        frames=tuple(paths[:-1]),
        masks=masks,
    )
