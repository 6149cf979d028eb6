# SPDX-License-Identifier: Apache-2.0
import pytest
from vitron.protocol.messages import MessageChunk


class Recorder:
    """A model that says what it is told to, and keeps what it is shown."""

    def __init__(self, *replies, context_length=None, chunk=1000):
        self.replies, self.context_length, self.chunk = list(replies), context_length, chunk
        self.shown, self.sampled = [], []

    def count_tokens(self, messages, media):
        shown = sum(part.type == "media" for message in messages for part in message.content)
        return sum(len(message.text.split()) for message in messages) + 10 * shown

    def stream(self, messages, media, regions, sampling):
        self.shown.append([[getattr(part, part.type) for part in message.content] for message in messages])
        self.sampled.append(sampling)
        reply = self.replies.pop(0)
        for start in range(0, len(reply), self.chunk):
            yield MessageChunk(reply[start : start + self.chunk])


@pytest.fixture
def recorder():
    return Recorder
