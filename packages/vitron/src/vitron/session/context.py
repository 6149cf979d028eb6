# SPDX-License-Identifier: Apache-2.0
"""Conversations that are longer than the context of their model."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vitron.errors import ContextLengthError
from vitron.protocol.contract import Issue
from vitron.protocol.messages import MediaPart, Message, MessageGenerator, RegionPart, TokenCounter
from vitron.protocol.sampling import SamplingParams
from vitron.session.media import ConversationMedia

__all__ = ["Prompt", "fit_context"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompt:
    """What a model reads to generate the next message.

    Attributes:
        messages: Messages that fit the context.
        sampling: Sampling options, with a number of tokens that fits behind the messages.
        tokens: Number of tokens of the messages; 0 if the model does not count them.
        issue: Sentence on the turns that are left out; ``None`` if there are none.
    """

    messages: tuple[Message, ...]
    sampling: SamplingParams
    tokens: int = 0
    issue: Issue | None = None


def fit_context(
    messages: Sequence[Message], media: ConversationMedia, model: MessageGenerator, sampling: SamplingParams
) -> Prompt:
    """Leave out the oldest turns of a conversation that is longer than the context of its model.

    A turn is a user message with all behind it up to the next one. As many of the oldest turns as necessary
    are left out, so that prompt and ``max_new_tokens`` fit, or a quarter of the context if that is less. The
    system message and the last user message stay. Of the media that only those turns showed, the latest image
    or video, and those on which regions of the other messages lie, are shown with the first message that
    stays; the others keep their handles. A message ends where the context does.

    Args:
        messages: Messages of the conversation.
        media: Its media and regions.
        model: Generator; if it is no :class:`vitron.protocol.messages.TokenCounter`, nothing is left out.
        sampling: Sampling options.

    Raises:
        ContextLengthError: If the last user message alone is too long.
    """
    whole = tuple(messages)
    if not isinstance(model, TokenCounter):
        return Prompt(messages=whole, sampling=sampling)
    counter: TokenCounter = model
    artefacts = list(media.artefacts.values())

    def count(turns: int) -> int:
        return counter.count_tokens(_without(whole, turns, media), artefacts)

    needed, left_out, length = count(0), 0, counter.context_length
    if length is None:
        return Prompt(messages=whole, sampling=sampling, tokens=needed)
    room = min(sampling.max_new_tokens, length // 4)
    if needed > length - room:
        most = max(0, sum(each.role == "user" for each in whole) - 1)
        left_out = bisect_left(range(most), True, key=lambda turns: count(turns) <= length - room)
    tokens = count(left_out)
    if tokens >= length:
        raise ContextLengthError(
            f"the message has {tokens} tokens, and the context of the model {length}: shorten it"
        )
    issue = None
    if left_out:
        turns = "1 turn is" if left_out == 1 else f"{left_out} turns are"
        issue = Issue(
            code="shortened",
            message=f"the oldest {turns} left out: the conversation has {needed} tokens, and the context of "
            f"the model {length}",
        )
    return Prompt(
        messages=_without(whole, left_out, media),
        sampling=replace(sampling, max_new_tokens=min(sampling.max_new_tokens, length - tokens)),
        tokens=tokens,
        issue=issue,
    )


def _without(messages: tuple[Message, ...], turns: int, media: ConversationMedia) -> tuple[Message, ...]:
    """Return a conversation without its oldest turns; their media are shown where they are still needed."""
    if not turns:
        return messages
    starts = [position for position, each in enumerate(messages) if each.role == "user"]
    system = [each for each in messages[:1] if each.role == "system"]
    first, *rest = messages[starts[turns] :]
    kept = [part for message in (first, *rest) for part in message.content]
    shown = {part.media for part in kept if isinstance(part, MediaPart)}
    needed = {media.placed[part.region].media for part in kept if isinstance(part, RegionPart)}
    if media.latest is not None:
        needed.add(media.latest)
    again = [MediaPart(media=position) for position in sorted(needed - shown)]
    return (*system, first.model_copy(update={"content": (*again, *first.content)}), *rest)
