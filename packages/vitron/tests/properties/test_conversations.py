# SPDX-License-Identifier: Apache-2.0
"""Handles and lengths of any conversation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vitron import Artefact, Conversation, SpecialistRegistry
from vitron.demo.painters import toy_registry
from vitron.errors import ContextLengthError
from vitron.protocol.contract import BoxRegion, Instruction, Invocation, ReferenceRegion, Turn
from vitron.protocol.messages import MediaPart, RegionPart, media_handles, text_message
from vitron.protocol.sampling import SamplingParams
from vitron.session.context import fit_context
from vitron.session.media import ConversationMedia

REGIONS = st.none() | st.builds(
    ReferenceRegion, name=st.builds("{}_{}".format, st.sampled_from(["mask", "region"]), st.integers(1, 3))
)
CALLS = st.builds(
    Invocation,
    module=st.sampled_from(["text_to_image", "image_segmentation", "image_editing", "text_to_video", "sing"]),
    instruction=st.sampled_from(["a red circle", "the circle", "a dog", "the blue star"]).map(
        lambda text: (Instruction(text=text),)
    ),
    args=st.sampled_from([{}, {"input": "img_1"}, {"input": "img_2"}, {"input": "vid_1"}]),
    region=REGIONS,
)
TOYS = toy_registry()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(CALLS, max_size=4), max_size=4))
def test_handles_are_those_that_the_model_reads(turns):
    """Whatever fails: the encoder names media by kind and order, and so does the conversation."""
    conversation = Conversation(specialists=TOYS)
    for calls in turns:
        results = conversation.run_calls(Turn(invocations=tuple(calls)))
        assert len(results) == len(calls)
        for result in results:
            assert (result.artefact is None) != (result.error is None)
            if result.artefact is not None:
                assert conversation.media[result.call.output] is result.artefact
    kinds = [artefact.kind for artefact in conversation.media.values()]
    assert list(conversation.media) == media_handles(kinds)


class Counter:
    """Counts words, and ten tokens for each medium that is shown."""

    def __init__(self, context_length):
        self.context_length = context_length

    def count_tokens(self, messages, media):
        parts = [part for message in messages for part in message.content]
        return sum(10 if isinstance(part, MediaPart) else 1 for part in parts) + sum(
            len(message.text.split()) for message in messages
        )

    def stream(self, messages, media, regions, sampling):
        raise AssertionError("nothing is generated here")


TURNS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2), st.booleans()), min_size=1, max_size=8)


@settings(deadline=None)
@given(TURNS, st.booleans(), st.integers(20, 200), st.integers(1, 300))
def test_what_is_left_of_a_long_conversation(turns, has_system, length, most):
    conversation = Conversation(specialists=SpecialistRegistry())
    if has_system:
        conversation.messages.append(text_message("system", "be brief"))
    image = Artefact("image", np.zeros((4, 4, 3), dtype=np.uint8))
    for number, (words, images, is_drawn) in enumerate(turns):
        can_draw = is_drawn and (images or conversation.latest is not None)
        regions = [BoxRegion(x0=0, y0=0, x1=1, y1=1)] * bool(can_draw)
        conversation.add_user_message(f"t{number} " * words, media=[image] * images, regions=regions)
        conversation.add_assistant_message(Turn(text="fine"))
    whole, media, model = conversation.messages[:-1], conversation._media, Counter(length)
    sampling, everything = SamplingParams(max_new_tokens=most), list(media.artefacts.values())
    room = min(most, length // 4)
    try:
        prompt = fit_context(whole, media, model, sampling)
    except ContextLengthError as error:
        needed = int(str(error).split()[3])
        assert needed >= length
        return
    kept, tokens = prompt.messages, model.count_tokens(prompt.messages, everything)
    assert prompt.tokens == tokens < length
    assert 1 <= prompt.sampling.max_new_tokens <= min(most, length - tokens)
    # the system message and the last message stay, and what stays is the end of the conversation
    assert kept[0] == whole[0] or not has_system
    behind = kept[has_system:]
    if len(behind) > 1:
        assert tokens <= length - room
        assert list(behind[1:]) == whole[len(whole) - len(behind) + 1 :]
    assert behind[0].role == "user"
    assert (prompt.issue is None) == (list(kept) == whole)
    # a region lies on a medium that is shown, and none is shown twice
    shown = [part.media for each in kept for part in each.content if isinstance(part, MediaPart)]
    drawn = {part.region for each in kept for part in each.content if isinstance(part, RegionPart)}
    assert len(set(shown)) == len(shown)
    assert {media.placed[region].media for region in drawn} <= set(shown)
    assert media.latest is None or media.latest in shown


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_a_region_fits_media_of_its_size_alone(height, width, other_height, other_width):
    media = ConversationMedia()
    media.add(Artefact("image", np.zeros((height, width, 3), dtype=np.uint8)))
    media.place([BoxRegion(x0=0, y0=0, x1=1, y1=1)])
    other = Artefact("image", np.zeros((other_height, other_width, 3), dtype=np.uint8))
    reference = ReferenceRegion(name="region_1")
    if (height, width) == (other_height, other_width):
        region, mask = media.resolve(reference, other, "img_2")
        assert mask.all()
        assert isinstance(region, BoxRegion)
    else:
        with pytest.raises(ValueError, match="name media of that size"):
            media.resolve(reference, other, "img_2")
