# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vitron.evaluation import (
    CallScores,
    Embed,
    cider,
    clipsim,
    edit_scores,
    fid,
    meteor,
    normalise_answer,
    score_turn,
    vqa_accuracy,
)
from vitron.evaluation.images import cosine
from vitron.protocol import parse
from vitron.protocol.contract import BoxRegion, Instruction, Invocation, PointsRegion

BOX = BoxRegion(x0=0.2, y0=0.2, x1=0.6, y1=0.8)


def call(module="image_segmentation", verb="segment", text="the dog", **more):
    return Invocation(module=module, instruction=(Instruction(verb=verb, text=text),), **more)


def said(module="B", text="segment: the dog", region=""):
    place = f"<region>{region}</region>" if region else ""
    return parse(f"Here. <module>{module}</module><instruction>{text}</instruction>{place}")


@pytest.mark.parametrize(
    ("text", "normal"),
    [("The  two dogs.", "2 dogs"), ("1,000", "1000"), ("3.5 m", "3.5 m"), ("Don't!", "don't"), ("none", "0")],
)
def test_answers_have_one_form(text, normal):
    assert normalise_answer(text) == normal


@given(st.text(max_size=40))
def test_the_form_is_final(text):
    once = normalise_answer(text)
    assert normalise_answer(once) == once or any(word in once.split() for word in ("a", "an", "the"))


def test_vqa_accuracy_counts_people():
    people = ["red"] * 2 + ["blue"] * 8
    # of ten ways to leave one out, eight leave both who agree and two leave one
    assert vqa_accuracy("Red", people) == pytest.approx((8 * 2 / 3 + 2 * 1 / 3) / 10)
    assert vqa_accuracy("blue.", people) == 1
    assert vqa_accuracy("a dog", ["the dog"]) == 1
    assert vqa_accuracy("cat", ["dog"]) == 0
    with pytest.raises(ValueError, match="at least one true answer"):
        vqa_accuracy("x", [])


def test_captions_like_the_true_ones_score_higher():
    true = [["a red circle on a wall"], ["two dogs in a park", "dogs that play"]]
    best = cider([group[0] for group in true], true)
    worse = cider(["a blue square", "dogs in a park"], true)
    assert best > worse > 0
    # one rare word alone: all n-grams agree, the scale is ten
    assert cider(["a b c d", "e f g h"], [["a b c d"], ["e f g h"]]) == pytest.approx(10)
    assert meteor([group[0] for group in true], true) > meteor(["a blue square", "dogs in a park"], true)
    assert meteor(["circles"], [["circle"]]) == meteor(["circle"], [["circle"]])  # by their stem
    with pytest.raises(ValueError, match="got 1 captions and 0 groups"):
        meteor(["x"], [])


def test_a_call_can_be_right_in_part():
    right = score_turn(said(region="[200, 200, 600, 800]"), [call(region=BOX)], [True])
    assert (right.modules, right.instructions, right.exact, right.executed) == (True, True, True, 1)
    assert right.region > 0.98
    moved = score_turn(said(region="[600, 200, 999, 800]"), [call(region=BOX)])
    assert (moved.instructions, moved.exact, moved.region) == (True, False, 0)
    other = score_turn(said(text="segment: the Cat"), [call()])
    assert (other.modules, other.instructions, other.exact) == (True, False, False)
    wrong = score_turn(said(module="C", text="remove: the dog"), [call()])
    assert (wrong.modules, wrong.exact) == (False, False)
    missing = score_turn(parse("No."), [call(region=BOX)])
    assert (missing.modules, missing.region, missing.has_calls) == (False, 0, False)
    case = score_turn(said(text="segment:  The   Dog"), [call()])
    assert case.exact
    extra = score_turn(said(region="[200, 200, 600, 800]"), [call()])
    assert (extra.instructions, extra.exact) == (True, False)
    click = score_turn(said(region="points [200, 200]"), [call(region=PointsRegion(points=((0.2, 0.2),)))])
    assert click.region > 0.8


def test_rates_count_only_what_bears_on_them():
    scores = CallScores()
    assert scores.figures() == {}
    for turn in (
        score_turn(said(), [call()], [True]),
        score_turn(parse("<module>B"), [call()]),
        score_turn(said(), [], [False]),
        score_turn(parse("Just words."), []),
    ):
        scores.add(turn)
    found = {name: figure.value for name, figure in scores.figures().items()}
    assert found == {
        "module_accuracy": 0.5,
        "instruction_exact": 0.5,
        "invocation_exact": 0.5,
        "parse_rate": 0.75,
        "spurious_rate": 0.5,
        "execution_rate": 0.5,
    }


def pixels(*colours):
    return [np.full((8, 8, 3), colour, dtype=np.uint8) for colour in colours]


EMBED = Embed(
    image=lambda picture: picture.reshape(-1, 3).mean(axis=0) - 10.0,
    text=lambda words: np.asarray([ord(letter) for letter in words[:3]], dtype=float),
)


def test_magicbrush_scores_of_a_perfect_edit():
    source, true = pixels((10, 20, 30), (200, 20, 30))
    perfect = edit_scores(source, true, true, ("abc", "abc"), EMBED)
    assert perfect.image == pytest.approx(1)
    assert perfect.l1 == 0
    assert perfect.direction == 0  # the captions are the same
    told = edit_scores(source, source, true, ("abc", "xyz"), EMBED)
    assert told.direction == 0  # nothing was changed
    assert told.l1 == pytest.approx(190 / 255 / 3)
    along = Embed(image=EMBED.image, text=lambda words: np.asarray([190.0 * len(words), 0, 0]))
    assert edit_scores(source, true, true, ("a", "ab"), along).direction == pytest.approx(1)
    with pytest.raises(ValueError, match="one shape"):
        edit_scores(source, source[:4], true, ("abc", "abd"), EMBED)


def test_clipsim_is_the_mean_over_frames():
    frames = pixels((10, 20, 30), (200, 20, 30))
    words = EMBED.text("abc")
    assert clipsim(frames, "abc", EMBED) == pytest.approx(
        np.mean([cosine(EMBED.image(frame), words) for frame in frames])
    )
    with pytest.raises(ValueError, match="at least one frame"):
        clipsim([], "abc", EMBED)


@pytest.mark.filterwarnings("ignore")  # of torchmetrics about the memory it takes
def test_fid_is_the_distance_of_two_normal_distributions():
    torch = pytest.importorskip("torch")

    class Mean(torch.nn.Module):
        def forward(self, images):
            return images.double().mean(dim=(2, 3))[:, :1]

    rng = np.random.default_rng(0)
    values = rng.integers(0, 200, 40)
    first, second = pixels(*values), pixels(*(values + 30))
    assert fid(first, first, Mean(), 1) == pytest.approx(0, abs=1e-4)
    # equal variance: the squared distance of the means is left
    assert fid(first, second, Mean(), 1) == pytest.approx(900, rel=1e-3)
    with pytest.raises(ValueError, match="at least two images"):
        fid(first[:1], second, Mean(), 1)
