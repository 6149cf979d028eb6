# SPDX-License-Identifier: Apache-2.0
"""Scores of each task: an answer becomes a row of plain numbers, rows become scores."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitron.data.example import Example
from vitron.data.files import safe_path
from vitron.errors import DataError, RegionError
from vitron.evaluation.answers import Answer
from vitron.evaluation.calls import CallScores, TurnScore, score_turn
from vitron.evaluation.figures import Figure, ciou_figure, mean_figure
from vitron.evaluation.images import Embed, Pixels, clipsim, edit_scores, l1
from vitron.evaluation.metrics import box_iou, j_and_f, overlap, tube_iou
from vitron.evaluation.readers import Item
from vitron.evaluation.texts import cider_scores, meteor_scores, vqa_accuracy
from vitron.protocol.contract import BoxRegion, Region
from vitron.protocol.media import read_media
from vitron.protocol.regions.text import parse_region

__all__ = ["TASKS", "EvaluationTask", "Row"]

Row = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]
Figures = dict[str, Figure]
_REGION = re.compile(r"\[\s*\d[\d\s.,]*\](?:\s*@\s*\d+)?(?:\s*\|\s*\d+\s*,\s*\d+)?")


@dataclass(frozen=True, slots=True)
class EvaluationTask:
    """Scoring of one task.

    Attributes:
        name: Task name of the samples.
        summary: One line.
        judge: Function that returns the row of one answer.
        summarise: Function that returns the figures of all rows, by name; shares are in [0, 1].
    """

    name: str
    summary: str
    judge: Callable[[Item, Example, Answer, Embed | None], Row]
    summarise: Callable[[Rows], Figures]


def _mean(rows: Rows, key: str) -> Figure:
    """Return the mean over the rows that have a value; at least one has."""
    return mean_figure([row[key] for row in rows if row.get(key) is not None])


def _calls(example: Example, answer: Answer) -> Row:
    last = example.messages[-1]
    wanted = last.calls if last.role == "assistant" else ()
    done = [result.error is None for result in answer.results]
    score = score_turn(answer.turn, wanted, done)
    return {"call": {name: getattr(score, name) for name in score.__dataclass_fields__}}


def _call_scores(rows: Rows) -> Figures:
    return CallScores([TurnScore(**row["call"]) for row in rows]).figures()


def _found_masks(answer: Answer, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the union of all masks, ``(T, H, W)``; empty if the shape does not fit."""
    result = answer.artefact("masks")
    if result is None or result.data.shape[1:] != shape:
        return np.zeros(shape, dtype=np.bool_)
    return np.asarray(result.data.any(axis=0), dtype=np.bool_)


def _true_masks(item: Item, example: Example) -> NDArray[np.bool_]:
    if not example.masks:
        raise DataError(f"{item.sample.id} has no true mask")
    return example.masks[max(example.masks)]


def _judge_segmentation(item: Item, example: Example, answer: Answer, embed: Embed | None) -> Row:
    true = _true_masks(item, example)
    shared, covered = overlap(_found_masks(answer, true.shape), true)
    return {"shared": shared, "covered": covered, **_calls(example, answer)}


def _sum_segmentation(rows: Rows) -> Figures:
    pairs = [(row["shared"], row["covered"]) for row in rows]
    ious = [shared / covered if covered else 1.0 for shared, covered in pairs]
    return {"ciou": ciou_figure(pairs), "giou": mean_figure(ious), **_call_scores(rows)}


def _judge_tracking(item: Item, example: Example, answer: Answer, embed: Embed | None) -> Row:
    true = _true_masks(item, example)
    found = _found_masks(answer, true.shape)
    given = {region.frame for region in example.regions}
    # the frame of the given region is not scored
    kept = [at for at in range(len(true)) if at not in given] or list(range(len(true)))
    scores = j_and_f(found[kept], true[kept])
    return {"j": scores.j, "f": scores.f, "sequence": item.sample.id, **_calls(example, answer)}


def _sum_tracking(rows: Rows) -> Figures:
    j, f = _mean(rows, "j"), _mean(rows, "f")
    both = mean_figure([(row["j"] + row["f"]) / 2 for row in rows])
    return {"j_and_f": both, "j": j, "f": f, "miou": j, **_call_scores(rows)}


def _answered_region(answer: Answer) -> tuple[Region | None, tuple[int, int] | None]:
    """Return the region and the frames in the text or the first call of an answer."""
    for match in _REGION.finditer(answer.turn.text):
        try:
            return parse_region(match[0])
        except RegionError:
            continue
    for call in answer.turn.invocations:
        if call.region is not None or call.frames is not None:
            return call.region, call.frames
    return None, None


def _judge_box(item: Item, example: Example, answer: Answer, embed: Embed | None) -> Row:
    boxes, (region, _) = item.sample.targets.boxes, _answered_region(answer)
    if not boxes:
        raise DataError(f"{item.sample.id} has no true box")
    found = region.corners if isinstance(region, BoxRegion) else None
    return {"iou": 0.0 if found is None else box_iou(found, boxes[0].corners), "answered": found is not None}


def _sum_box(rows: Rows) -> Figures:
    return {
        "acc@0.5": _above(rows, "iou"),
        "mean_iou": _mean(rows, "iou"),
        "answered": _mean(rows, "answered"),
    }


def _judge_grounding(item: Item, example: Example, answer: Answer, embed: Embed | None) -> Row:
    true = {box.frame or 0: box.corners for box in item.sample.targets.boxes}
    region, frames = _answered_region(answer)
    found = dict[int, tuple[float, float, float, float]]()
    if isinstance(region, BoxRegion):
        first, last = frames or (0, example.media[0].num_frames - 1)
        found = dict.fromkeys(range(first, last + 1), region.corners)
    v_iou, t_iou = tube_iou(found, true)
    per_frame = [box_iou(found[at], true[at]) if at in found else 0.0 for at in true]
    return {"v_iou": v_iou, "t_iou": t_iou, "miou": float(np.mean(per_frame))}


def _sum_grounding(rows: Rows) -> Figures:
    return {name: _mean(rows, name) for name in ("miou", "v_iou", "t_iou")} | {
        "v_iou@0.5": _above(rows, "v_iou")
    }


def _above(rows: Rows, key: str) -> Figure:
    """Return the share of rows with an IoU above 0.5."""
    return mean_figure([float(row[key] > 0.5) for row in rows])


def _judge_caption(item: Item, example: Example, answer: Answer, embed: Embed | None) -> Row:
    if not item.sample.targets.captions:
        raise DataError(f"{item.sample.id} has no true caption")
    return {"found": answer.turn.text.strip(), "true": list(item.sample.targets.captions)}


def _sum_caption(rows: Rows) -> Figures:
    found, true = [row["found"] for row in rows], [row["true"] for row in rows]
    scores = {"cider": cider_scores(found, true), "meteor": meteor_scores(found, true)}
    return {name: mean_figure(each) for name, each in scores.items()}


def _judge_vqa(item: Item, example: Example, answer: Answer, embed: Embed | None) -> Row:
    text, true = answer.turn.text.strip(), item.sample.targets.answers
    if not true:
        raise DataError(f"{item.sample.id} has no true answer")
    return {"found": text, "accuracy": vqa_accuracy(text, true), "called": bool(answer.turn.invocations)}


def _sum_vqa(rows: Rows) -> Figures:
    return {"accuracy": _mean(rows, "accuracy"), "spurious_rate": _mean(rows, "called")}


def _judge_editing(item: Item, example: Example, answer: Answer, embed: Embed | None) -> Row:
    targets, result = item.sample.targets, answer.artefact("image")
    if targets.image is None:
        raise DataError(f"{item.sample.id} has no true result")
    true = read_media(safe_path(item.folder, targets.image)).frames[0]
    source = example.media[0].frames[0]
    # without a result the image is unchanged
    found = _resized((source if result is None else result.frames[0]), true.shape[:2])
    row: Row = {"l1": l1(found, true), "generated": result is not None, **_calls(example, answer)}
    if embed is not None and targets.source_caption and targets.captions:
        scores = edit_scores(source, found, true, (targets.source_caption, targets.captions[0]), embed)
        row |= scores._asdict()
    return row


def _sum_editing(rows: Rows) -> Figures:
    scores = {"l1": _mean(rows, "l1"), "generated": _mean(rows, "generated")}
    for key in ("direction", "image", "text"):
        if any(key in row for row in rows):
            scores[f"clip_{key}"] = _mean(rows, key)
    return scores | _call_scores(rows)


def _judge_generation(item: Item, example: Example, answer: Answer, embed: Embed | None) -> Row:
    result = answer.artefact("video") or answer.artefact("image")
    row: Row = {"generated": result is not None, **_calls(example, answer)}
    if embed is not None:
        # an image that was not generated resembles nothing
        text = next(iter(item.sample.targets.captions), example.messages[0].text)
        row["clipsim"] = 0.0 if result is None else clipsim(result.frames, text, embed)
    return row


def _sum_generation(rows: Rows) -> Figures:
    known = {"clipsim": _mean(rows, "clipsim")} if any("clipsim" in row for row in rows) else {}
    return {"generated": _mean(rows, "generated"), **known, **_call_scores(rows)}


def _judge_calls(item: Item, example: Example, answer: Answer, embed: Embed | None) -> Row:
    return _calls(example, answer)


def _resized(image: Pixels, size: tuple[int, ...]) -> Pixels:
    from PIL import Image

    if image.shape[:2] == size:
        return image
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.uint8)


_ALL = (
    EvaluationTask("caption", "captions: CIDEr, METEOR", _judge_caption, _sum_caption),
    EvaluationTask("dialogue", "calls where none is correct", _judge_calls, _call_scores),
    EvaluationTask("image_editing", "L1 and MagicBrush's scores", _judge_editing, _sum_editing),
    EvaluationTask("image_to_video", "share generated, CLIPSIM", _judge_generation, _sum_generation),
    EvaluationTask("invocation", "modules, instructions, regions", _judge_calls, _call_scores),
    EvaluationTask("referring_box", "acc@0.5 of boxes in text", _judge_box, _sum_box),
    EvaluationTask("referring_segmentation", "cIoU, gIoU", _judge_segmentation, _sum_segmentation),
    EvaluationTask("region_caption", "captions of regions: CIDEr, METEOR", _judge_caption, _sum_caption),
    EvaluationTask("text_to_image", "share generated, CLIPSIM", _judge_generation, _sum_generation),
    EvaluationTask("text_to_video", "share generated, CLIPSIM", _judge_generation, _sum_generation),
    EvaluationTask("video_grounding", "mIoU, vIoU of boxes in time", _judge_grounding, _sum_grounding),
    EvaluationTask("video_segmentation", "J, F and their mean", _judge_tracking, _sum_tracking),
    EvaluationTask("vqa", "agreement with human answers", _judge_vqa, _sum_vqa),
)
TASKS: dict[str, EvaluationTask] = {task.name: task for task in _ALL}
