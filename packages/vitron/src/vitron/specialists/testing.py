# SPDX-License-Identifier: Apache-2.0
"""A test of the contract, for authors of specialists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vitron.errors import explain
from vitron.protocol.contract import BoxRegion, MediaKind, SpecialistSpec
from vitron.protocol.media import Artefact
from vitron.protocol.modules import MODULES, ModuleRegistry
from vitron.protocol.regions.raster import rasterise
from vitron.specialists.protocol import Action, Request, Result, Specialist

_INSTRUCTIONS = {
    "text_to_image": ("generate", "a red circle and a blue square"),
    "image_segmentation": ("segment", "the red circle"),
    "image_editing": ("remove", "the red circle"),
    "text_to_video": ("generate", "a red circle moving right"),
    "video_segmentation": ("track", "the red circle"),
    "video_editing": ("recolour", "the red circle to green"),
    "image_to_video": ("animate", "the red circle moves down"),
    "restoration": ("restore", "the image"),
}
_MARKED = ("image_segmentation", "image_editing", "video_segmentation")
_FRAMES = 4
_DISC = BoxRegion(x0=5 / 64, y0=7 / 48, x1=24 / 64, y1=26 / 48)  # around the disc of the first frame


def example_requests(spec: SpecialistSpec, *, modules: ModuleRegistry = MODULES) -> list[Request]:
    """Return one request for each task of a specialist, on a drawn image or video of 48 by 64 pixels.

    A request has a region if that helps: the box around the object that the text names. The edit of a video
    has the object's mask on each frame if the specialist needs a region.
    """
    requests = list[Request]()
    for task in spec.tasks:
        inputs = modules[task].inputs if task in modules else spec.inputs
        action, text = _INSTRUCTIONS.get(task, ("do", "what you do"))
        media = _drawn(inputs[0]) if inputs else None
        marked = media is not None and (task in _MARKED or (spec.needs_region and media.kind == "image"))
        tracked = spec.needs_region and task == "video_editing"
        requests.append(
            Request(
                module=task,
                actions=(Action(action, text, action),),
                media=media,
                region=_DISC if marked else None,
                mask=rasterise(_DISC, 48, 64) if marked else None,
                track=np.stack([_disc(index) for index in range(_FRAMES)]) if tracked else None,
            )
        )
    return requests


def _disc(frame: int) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:48, :64]
    return (rows - 16) ** 2 + (columns - 14 - 3 * frame) ** 2 <= 81


def _drawn(kind: MediaKind) -> Artefact:
    """Draw a red disc and a blue square on white; in a video the disc moves."""
    frames = np.full((_FRAMES, 48, 64, 3), 240, dtype=np.uint8)
    for index, frame in enumerate(frames):
        frame[_disc(index)] = (214, 40, 40)
        frame[28:42, 40:54] = (35, 87, 200)
    return Artefact("image", frames[0]) if kind == "image" else Artefact("video", frames)


def check_specialist(
    specialist: Specialist, requests: Sequence[Request] | None = None, *, device: str = "cpu"
) -> list[str]:
    """Return how a specialist violates the contract, one sentence each; an empty list if it does not.

    It is loaded, run twice with the same seed, unloaded, and run again after loading again.

    Args:
        specialist: Specialist to check.
        requests: Requests to run; by default one easy request for each task.
        device: Device to load it on.
    """
    spec, faults = specialist.spec, list[str]()
    if spec != specialist.spec:
        faults.append("spec differs between two reads")
    wanted: dict[str, MediaKind] = {task: MODULES[task].output for task in spec.tasks if task in MODULES}
    for request in example_requests(spec) if requests is None else requests:
        before = np.zeros(0) if request.media is None else request.media.data.copy()
        try:
            specialist.load(device, "auto")
            answers = [specialist.run(request, seed=3), specialist.run(request, seed=3)]
            specialist.unload()
            specialist.load(device, "auto")
            answers.append(specialist.run(request, seed=3))
        except Exception as error:
            faults.append(f"{request.module}: {type(error).__name__}: {explain(error)}")
            continue
        finally:
            specialist.unload()
        if request.media is not None and not np.array_equal(before, request.media.data):
            faults.append(f"{request.module}: the input is changed")
        faults += _faults(request.module, spec, wanted, answers)
    return faults


def _faults(
    task: str, spec: SpecialistSpec, wanted: Mapping[str, MediaKind], answers: Sequence[object]
) -> list[str]:
    first = answers[0]
    if not isinstance(first, Result):
        return [f"{task}: run must return a Result, got {type(first).__name__}"]
    kind = first.artefact.kind
    if kind not in spec.outputs:
        return [f"{task}: it declares {', '.join(spec.outputs)}, got {kind}"]
    if wanted.get(task, kind) != kind:
        return [f"{task}: the task makes {wanted[task]}, got {kind}"]
    same = all(
        isinstance(answer, Result) and np.array_equal(answer.artefact.data, first.artefact.data)
        for answer in answers
    )
    return [] if same or not spec.deterministic else [f"{task}: the same seed gives another result"]
