# SPDX-License-Identifier: Apache-2.0
"""Conversations as text by the chat template of a backbone, and where the model's own text lies in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

__all__ = ["ChatRenderer", "Segment", "chat_template", "list_templates"]

# private characters, which no chat template treats in a special way
_MARK = "\ue000{}\ue001"
_MARKS = re.compile("\ue000([0-9]+)\ue001")
_FOLDER = resources.files("vitron.model.hf") / "templates"


class Segment(NamedTuple):
    """Part of a rendered conversation.

    Attributes:
        text: Text.
        is_generated: Whether the model generates it.
    """

    text: str
    is_generated: bool


def list_templates() -> list[str]:
    """Return the names of the chat templates for models that have none."""
    return sorted(
        each.name.removesuffix(".jinja") for each in _FOLDER.iterdir() if each.name.endswith(".jinja")
    )


def chat_template(name: str, image_token: str, video_token: str | None = None) -> str:
    """Return the Jinja source of a chat template for models that have none.

    Args:
        name: One of :func:`list_templates`.
        image_token: Placeholder of an image.
        video_token: Placeholder of a video.

    Raises:
        ValueError: If there is no such template.
    """
    if name not in list_templates():
        raise ValueError(f"there is no template {name!r}: choose one of {', '.join(list_templates())}")
    source = (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return source.replace("<image>", image_token).replace("<video>", video_token or image_token)


class ChatRenderer:
    """Renders conversations, and marks what the model generates.

    Each template is asked once, by a short conversation, how it opens and ends an assistant message.

    Args:
        processor: Processor of the backbone.
        image_token: Placeholder of an image in rendered text.
        video_token: Placeholder of a video; ``None`` if videos are shown as images.

    Raises:
        ValueError: If the model has no chat template, or one that drops messages.
    """

    def __init__(self, processor: Any, image_token: str | None, video_token: str | None) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.template = getattr(processor, "chat_template", None) or self.tokenizer.chat_template
        if not self.template:
            raise ValueError(
                f"the model has no chat template: attach it with one of {', '.join(list_templates())}"
            )
        self._tokens = {"image": image_token, "video": video_token}
        # templates may collect images at the start, or take nothing but strings: then text holds placeholders
        self._takes_parts = self._is_in_order("image", image_token) and self._is_in_order(
            "video", video_token
        )
        self._is_text_only = not self._takes_parts and not self._renders_parts()
        self._has_system = self._accepts_system()
        self._read_assistant()

    # -- how the template treats messages

    def _render(self, messages: Sequence[Mapping[str, Any]], *, prompt: bool = False) -> str:
        return self.processor.apply_chat_template(
            list(messages), chat_template=self.template, add_generation_prompt=prompt, tokenize=False
        )

    def _is_in_order(self, kind: str, token: str | None) -> bool:
        if token is None:
            return True
        content = [{"type": "text", "text": "\ue002"}, {"type": kind}, {"type": "text", "text": "\ue003"}]
        try:
            text = self._render([{"role": "user", "content": content}])
        except Exception:  # templates raise what they like
            return False
        return text.find("\ue002") < text.find(token) < text.find("\ue003") and text.count(token) == 1

    def _renders_parts(self) -> bool:
        try:
            text = self._render([{"role": "user", "content": [{"type": "text", "text": "\ue002"}]}])
        except Exception:  # templates raise what they like
            return False
        return "\ue002" in text and "'type'" not in text

    def _accepts_system(self) -> bool:
        messages = [self._message("system", "\ue002"), self._message("user", "\ue003")]
        try:
            return "\ue002" in self._render(messages)
        except Exception:  # templates raise what they like
            return False

    def _message(self, role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": text if self._is_text_only else [{"type": "text", "text": text}]}

    def _read_assistant(self) -> None:
        """Read what opens and ends an assistant message, in a conversation and where one is asked for."""
        user, mark = self._message("user", "\ue002"), _MARK.format(0)
        assistant = self._message("assistant", mark)
        opened, full = self._render([user], prompt=True), self._render([user, assistant])
        before, _, after = full.partition(mark)
        longer = self._render([user, assistant, user])
        self.rewrites_history = not longer.startswith(before + mark) or not before.startswith(opened)
        self.lead = before[len(opened) :] if before.startswith(opened) else ""
        # the first special token behind the text ends it
        found = _first_special(after, self.tokenizer)
        self.end = found or str(self.tokenizer.eos_token)
        self.tail = after[: after.index(found)] if found else ""

    @property
    def end_token_id(self) -> int:
        """Token that ends an assistant message."""
        return int(self.tokenizer.convert_tokens_to_ids(self.end))

    # -- conversations

    def segments(self, messages: Sequence[Mapping[str, Any]]) -> list[Segment]:
        """Render a conversation and split it where the model's own text begins and ends.

        A conversation that does not end with an assistant message ends with the opening of one.

        Args:
            messages: Messages with ``role`` and ``content``, a list of parts:
                ``{"type": "text", "text": ...}``, ``{"type": "image"}`` and ``{"type": "video"}``.

        Raises:
            ValueError: If the template drops a message.
        """
        answers = [
            "".join(part["text"] for part in m["content"]) for m in messages if m["role"] == "assistant"
        ]
        text = self._render(
            self._adapted(messages), prompt=not messages or messages[-1]["role"] != "assistant"
        )
        pieces = _MARKS.split(text)
        if [int(each) for each in pieces[1::2]] != list(range(len(answers))):
            raise ValueError("the chat template of the model drops or repeats an assistant message")
        found = list[Segment]()
        for place, piece in enumerate(pieces[::2]):
            last = place == len(answers)
            if place:
                piece = self._behind_answer(piece)
            # templates that treat the last answer apart write what opens it there alone
            lead = self.lead if not last and piece.endswith(self.lead) else ""
            piece = piece.removesuffix(lead)
            if piece:
                found.append(Segment(piece, False))
            if not last:
                found.append(Segment(lead + answers[place] + self.tail + self.end, True))
        return found

    def _behind_answer(self, text: str) -> str:
        if text.startswith(self.tail + self.end):
            return text.removeprefix(self.tail + self.end)
        return text.lstrip()  # a template without an end token puts a space there instead

    def _adapted(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        found, system, number = list[dict[str, Any]](), "", 0
        for message in messages:
            role, parts = message["role"], message["content"]
            if role == "assistant":
                found.append(self._message(role, _MARK.format(number)))
                number += 1
                continue
            if role == "system" and not self._has_system:
                system = _text(parts) + "\n\n"
                continue
            parts = [{"type": "text", "text": system}, *parts] if system else parts
            parts, system = [_without_marks(part) for part in parts], ""
            if self._takes_parts:
                found.append({"role": role, "content": _joined(parts)})
            else:
                text = "".join(
                    part.get("text") or str(self._tokens.get(part["type"]) or "") for part in parts
                )
                found.append(self._message(role, text))
        return found


def _text(parts: Sequence[Mapping[str, Any]]) -> str:
    return "".join(part["text"] for part in parts)


def _without_marks(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part in whose text nothing looks like the place of an assistant message.

    Something takes the place of a mark, since what stands around it could join to a special token.
    """
    return {**part, "text": part["text"].replace(_MARK[0], "\ufffd")} if "text" in part else dict(part)


def _joined(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Join neighbouring text: some templates put something between two parts."""
    found = list[dict[str, Any]]()
    for part in parts:
        if part["type"] == "text" and found and found[-1]["type"] == "text":
            found[-1] = {"type": "text", "text": found[-1]["text"] + part["text"]}
        else:
            found.append(dict(part))
    return found


def _first_special(text: str, tokenizer: Any) -> str:
    """Return the special token with which a text begins, white space aside; ``""`` if with none."""
    text = text.lstrip()
    known = [each.content for each in tokenizer.added_tokens_decoder.values() if each.special]
    return max((each for each in known if text.startswith(each)), key=len, default="")
