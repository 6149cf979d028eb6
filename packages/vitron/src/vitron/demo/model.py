# SPDX-License-Identifier: Apache-2.0
"""Talks with a model about drawn pictures that it never saw, held against the truth, and their transcript."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitron.data.example import Example
from vitron.data.files import read_example, read_samples
from vitron.demo.painters import toy_registry
from vitron.demo.scripted import STYLE, Figures, TaskFigures, image_tag
from vitron.model.engine import Vitron
from vitron.protocol import render
from vitron.protocol.contract import Instruction, Invocation, Turn
from vitron.protocol.media import Artefact, overlay, write_bytes, write_media
from vitron.protocol.messages import MediaPart, Message, PlacedRegion, RegionPart
from vitron.protocol.sampling import SamplingParams
from vitron.protocol.regions import mask_to_region
from vitron.session import CallResult, Conversation, DoneEvent, ResultEvent
from vitron.specialists.adapters.base import quiet
from vitron.specialists.mask_head import MaskHeadSpecialist

__all__ = ["TurnReport", "run_model_demo"]


@dataclass(frozen=True, slots=True, eq=False)
class TurnReport:
    """One turn of a talk.

    Attributes:
        asked: What the user said.
        wanted: The reply that would have been right.
        turn: The reply that came.
        results: What came of its calls.
        score: 0 to 1.
        measure: What the score is.
        shown: Pictures: what the user brought, then what was made, masks over what they mark.
    """

    asked: str
    wanted: Message
    turn: Turn
    results: tuple[CallResult, ...]
    score: float
    measure: str
    shown: tuple[tuple[str, Artefact], ...] = field(default=())


def run_model_demo(
    out: Path, model: str = "vitron-tiny", *, on_conversation: Callable[[int, int, str], None] | None = None
) -> Figures:
    """Hold all talks of the demo; write their pictures and ``transcript.html``.

    Scores: whether an answer is the right one to the letter, the overlap of a mask with the truth, or whether
    the calls are the right ones and were carried out. Toy specialists carry them out.

    Args:
        out: Folder; files of an earlier demo are replaced.
        model: Name or folder.
        on_conversation: Called with talks done, talks in all, and the task that comes.

    Raises:
        MediaError: If the folder cannot be written.
        ValueError: If there is no such model.
    """
    with quiet():
        vitron = Vitron.from_pretrained(model, device="cpu")
    folder = Path(str(resources.files("vitron") / "assets" / "demo"))
    samples = [sample for _, sample in read_samples(folder)]
    figures, sections, turns = list[TaskFigures](), list[str](), 0
    clean = 0
    for number, sample in enumerate(samples):
        name = " ".join(sample.id.replace("_", " ").rsplit("-", 1))
        if on_conversation is not None:
            on_conversation(number, len(samples), name)
        reports = list(_hold(vitron, read_example(sample, folder)))
        turns += len(reports)
        clean += sum(not report.turn.issues for report in reports)
        score = float(np.mean([report.score for report in reports]))
        measures = ", ".join(dict.fromkeys(report.measure for report in reports))
        figures.append(TaskFigures(name, score, measures))
        sections.append(_section(name, reports))
        for at, report in enumerate(reports):
            for place, (title, artefact) in enumerate(report.shown):
                if title != "you":
                    write_media(artefact, out, f"{number + 1:02d}-{sample.id}-{at}-{place}")
    write_bytes(out / "transcript.html", _page(model, sections, figures).encode("utf-8"))
    return Figures(tuple(figures), clean / turns, f"by {model}")


def _hold(vitron: Vitron, example: Example) -> Iterator[TurnReport]:
    """Say what the user says, turn by turn, and compare each reply with the one that was drawn."""
    registry = toy_registry()
    registry.register("mask-head", lambda: MaskHeadSpecialist(vitron.mask))
    registry.prefer = ("mask-head",)
    conversation = vitron.conversation(registry)
    calls = 0
    for asked, wanted in zip(example.messages[::2], example.messages[1::2], strict=True):
        brought = [example.media[part.media] for part in asked.content if isinstance(part, MediaPart)]
        drawn = [example.regions[part.region] for part in asked.content if isinstance(part, RegionPart)]
        conversation.add_user_message(
            asked.text,
            media=brought,
            regions=[mask_to_region(each.mask, frame=each.frame or None) for each in drawn],
        )
        events = list(conversation.generate(SamplingParams(max_new_tokens=160)))
        turn = next(event.turn for event in events if isinstance(event, DoneEvent))
        results = tuple(event.result for event in events if isinstance(event, ResultEvent))
        truths = {number - calls: mask for number, mask in example.masks.items() if number >= calls}
        score, measure = _score(wanted, turn, results, truths)
        calls += len(wanted.calls)
        shown = [("you", each) for each in _with_regions(brought, drawn)]
        shown += [
            (_title(each), _picture(conversation, each)) for each in results if each.artefact is not None
        ]
        yield TurnReport(asked.text, wanted, turn, results, score, measure, tuple(shown))


def _score(
    wanted: Message, turn: Turn, results: Sequence[CallResult], truths: dict[int, NDArray[np.bool_]]
) -> tuple[float, str]:
    """Return a score and what it is: the overlap of a mask, carried-out calls, or an answer to the letter."""
    if not wanted.calls:
        return float(not turn.invocations and turn.text.strip() == wanted.text), "answer to the letter"
    made = results[0].artefact if len(results) == len(wanted.calls) else None
    if len(wanted.calls) == 1 and made is not None and made.kind == "masks" and 0 in truths:
        found, truth = made.data.any(axis=0), truths[0]
        union = int((found | truth).sum())
        return float((found & truth).sum() / union) if union else 1.0, "overlap of the mask"
    done = [result.artefact is not None for result in results]
    right = [_said(call) for call in turn.invocations] == [_said(call) for call in wanted.calls]
    return float(right and all(done)), "calls right and carried out"


def _said(call: Invocation) -> tuple[str, tuple[Instruction, ...]]:
    return call.module, call.instruction


def _with_regions(brought: Sequence[Artefact], drawn: Sequence[PlacedRegion]) -> list[Artefact]:
    """Return what the user brings, with what they drew on the last of it."""
    shown = list(brought)
    if shown and drawn:
        masks = np.stack([each.mask for each in drawn])[:, None]
        frames = shown[-1].num_frames
        masks = np.broadcast_to(masks, (len(drawn), frames, *masks.shape[2:])).copy()
        shown[-1] = overlay(Artefact("masks", masks, ("region",) * len(drawn)), shown[-1])
    return shown


def _title(result: CallResult) -> str:
    return f"{result.call.output}: {result.call.invocation.module}, by {result.specialist}"


def _picture(conversation: Conversation, result: CallResult) -> Artefact:
    made = result.artefact
    if made is None:
        raise RuntimeError("nothing was made")
    if made.kind != "masks" or result.call.input is None:
        return made
    return overlay(made, conversation.media[result.call.input])


def _section(name: str, reports: Sequence[TurnReport]) -> str:
    parts = [f"<section><h2>{html.escape(name)}</h2>"]
    for report in reports:
        given = "".join(
            image_tag(each, "what the user brings") for title, each in report.shown if title == "you"
        )
        made = "".join(image_tag(each, title) for title, each in report.shown if title != "you")
        raw = "".join(span.raw for span in report.turn.spans if span.kind != "signal")
        signals = f" + {len(report.turn.signals)} signals" if report.turn.signals else ""
        right = render(Turn(text=report.wanted.text, invocations=report.wanted.calls))
        wrong = (
            "" if report.score >= 0.5 else f'<div class="score">right would be: {html.escape(right)}</div>'
        )
        problems = "".join(
            f'<div class="score">{html.escape(str(each.error))}</div>'
            for each in report.results
            if each.error
        )
        parts.append(
            f'<div class="user">{html.escape(report.asked)}<br>{given}</div>'
            f'<div class="reply">{html.escape(raw)}{signals}</div>{made}{problems}{wrong}'
            f'<div class="score">{html.escape(report.measure)}: {report.score:.2f}</div>'
        )
    return "".join([*parts, "</section>"])


def _page(model: str, sections: Sequence[str], figures: Sequence[TaskFigures]) -> str:
    mean = sum(task.score for task in figures) / len(figures)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>vitron demo</title>'
        f"<style>{STYLE}</style></head><body><h1>Talks with {html.escape(model)}</h1>"
        "<p>The users' words are a script; all replies, in grey, are the model's own, and so are the masks. "
        "Toy specialists, which know drawn shapes only, carry out the other calls. The pictures were never "
        f"shown in training, nor chosen by what comes of them. Mean score: {mean:.2f}.</p>"
        f"{''.join(sections)}</body></html>\n"
    )
