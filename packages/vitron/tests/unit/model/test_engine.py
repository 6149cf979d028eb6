# SPDX-License-Identifier: Apache-2.0
"""Messages by the step and by the batch are the same, and signals reach the mask head."""

import numpy as np
import pytest
import torch
from vitron.errors import UnsupportedRequestError
from vitron.model.engine import Vitron
from vitron.protocol.sampling import SamplingParams
from vitron.session import DoneEvent, ResultEvent, TextEvent
from vitron.specialists.protocol import Action, Request

from .conftest import ask, make_image, make_video, segment, square


def generate(vitron, example, **settings):
    pieces = vitron.stream(example.messages, example.media, example.regions, SamplingParams(**settings))
    return "".join(piece.text for piece in pieces)


@pytest.mark.parametrize("constrained", [False, True])
def test_a_stream_and_a_batch_generate_the_same(vitron, constrained):
    examples = [
        ask(make_image(0), regions=(square(),), reply=None),
        ask(text="hello", reply=None),
        ask(make_video(2), reply=None),
    ]
    together = vitron.generate_batch(examples, max_new_tokens=24, constrained=constrained)
    alone = [generate(vitron, each, max_new_tokens=24, constrained=constrained) for each in examples]
    assert [each.rstrip("\ufffd") for each in together] == [each.rstrip("\ufffd") for each in alone]


def test_a_batch_does_not_change_the_processor_that_is_saved(vitron, tmp_path):
    vitron.save_pretrained(tmp_path / "before")
    vitron.generate_batch([ask(text="hello", reply=None), ask(text="hi", reply=None)], max_new_tokens=2)
    vitron.save_pretrained(tmp_path / "after")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "after" / name).read_text() == (tmp_path / "before" / name).read_text()


def test_same_seed_same_message_and_nobody_else_is_disturbed(vitron):
    example = ask(make_image(0), reply=None)
    before = torch.get_rng_state()
    first, again, other = (
        generate(vitron, example, temperature=5.0, max_new_tokens=16, seed=s) for s in (1, 1, 2)
    )
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


def test_a_narrow_choice_is_greedy(vitron):
    example = ask(text="hello", reply=None)
    narrow = generate(vitron, example, temperature=1.0, top_p=1e-6, max_new_tokens=12)
    assert narrow == generate(vitron, example, max_new_tokens=12)


def test_streamed_signals_are_those_of_the_whole_conversation(vitron, monkeypatch):
    """The model is made to say a message that has signals; what the cache saw is what a full pass sees."""
    example = ask(make_image(0), reply=("ok", (segment(),)))
    wanted = vitron.signals_of([example])[0][0]
    text = vitron.encoder.assistant_text(example.messages[1])
    script = iter([*vitron.encoder.tokenize(text), vitron.encoder.end_id])
    monkeypatch.setattr("vitron.model.generation._sample", lambda *_: next(script))
    free = SamplingParams(max_new_tokens=200, constrained=False)
    pieces = list(vitron.stream(example.messages[:1], example.media, (), free))
    assert "".join(piece.text for piece in pieces) == text
    (found,) = [piece.signal for piece in pieces if piece.signal is not None]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_conversation_segments_by_its_own_signals(vitron, monkeypatch):
    example = ask(make_image(0, 20, 32), reply=("ok", (segment(),)))
    text = vitron.encoder.assistant_text(example.messages[1])
    script = iter([*vitron.encoder.tokenize(text), vitron.encoder.end_id])
    monkeypatch.setattr("vitron.model.generation._sample", lambda *_: next(script))
    conversation = vitron.conversation()
    conversation.add_user_message("segment it", media=example.media)
    events = list(conversation.generate(SamplingParams(max_new_tokens=200, constrained=False)))
    (result,) = [event.result for event in events if isinstance(event, ResultEvent)]
    assert result.specialist == "mask-head"
    signal = vitron.signals_of([example])[0][0]
    wanted = vitron.mask(signal, "image_segmentation", example.media[0])
    assert np.mean(result.artefact.data[0] != wanted) < 0.02
    assert "".join(event.text for event in events if isinstance(event, TextEvent)) == "ok"
    assert isinstance(events[-1], DoneEvent)


def test_masks_have_the_size_and_the_frames_of_what_is_asked_about(vitron):
    signal = np.random.default_rng(0).standard_normal((8, 48)).astype(np.float32)
    assert vitron.mask(signal, "image_segmentation", make_image(0, 18, 40)).shape == (1, 18, 40)
    long_video = make_video(11)
    masks = vitron.mask(signal, "video_segmentation", long_video)
    assert masks.shape == (11, 32, 32)
    with pytest.raises(UnsupportedRequestError, match="does not serve"):
        vitron.mask(signal, "restoration", make_image())


def test_without_signals_the_mask_head_leaves_the_call_to_others(vitron):
    registry = vitron.specialists()
    request = Request(
        module="image_segmentation", actions=(Action("segment", "the red circle"),), media=make_image(0)
    )
    specialist = registry.create("mask-head")
    with pytest.raises(UnsupportedRequestError, match="signals"):
        specialist.run(request)


def test_what_signals_mean_is_marked_for_edits_alone(vitron):
    locate = vitron.specialists().locate
    width = vitron.model.config.text.hidden_size
    signal = np.random.default_rng(0).normal(size=(vitron.model.config.num_signals, width)).astype(np.float32)
    shown = make_video(3)
    whole = vitron.mask(signal, "image_editing", shown)[0]
    with torch.no_grad():
        vitron.model.mask_head.query.bias[-1] += 100  # everything
    assert locate("image_editing", shown, signal).all()
    with torch.no_grad():
        vitron.model.mask_head.query.bias[-1] -= 200  # nothing
    assert locate("image_editing", shown, signal) is None
    with torch.no_grad():
        vitron.model.mask_head.query.bias[-1] += 100
    found = locate("image_editing", shown, signal)
    assert (found is None and not whole.any()) or np.array_equal(found, whole)
    assert locate("restoration", shown, signal) is None


def test_models_are_read_from_safetensors_and_unknown_ones_refused(vitron, tmp_path):
    vitron.save_pretrained(tmp_path)
    other = Vitron.from_pretrained(tmp_path, device="cpu")
    example = ask(make_image(0), reply=None)
    assert generate(other, example, max_new_tokens=8) == generate(vitron, example, max_new_tokens=8)
    weights = tmp_path / "model.safetensors"
    torch.save(other.model.state_dict(), tmp_path / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(OSError, match="safetensors"):
        Vitron.from_pretrained(tmp_path, device="cpu")
    with pytest.raises(ValueError, match="dtype"):
        Vitron.from_pretrained(tmp_path, dtype="int64s")
