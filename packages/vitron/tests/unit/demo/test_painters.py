# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image
from vitron.demo.painters import ToyAnimator, ToyPainter, ToySegmenter
from vitron.demo.painters.edits import fill_in
from vitron.demo.painters.find import best_shape, things_in
from vitron.demo.painters.shapes import BACKGROUND, blank, shape_mask, stamp
from vitron.demo.painters.words import SHAPES, Phrase, read_phrase, read_things
from vitron.errors import UnsupportedRequestError
from vitron.protocol.media import Artefact
from vitron.specialists import Action, Request
from vitron.specialists.registry import SpecialistRegistry
from vitron.specialists.words import COLOURS


def scene(*things, size=(48, 64)):
    """An image with things of shape, colour, row, column and side, and the mask of each."""
    canvas, masks = blank(*size), []
    for shape, colour, row, column, side in things:
        before = canvas.copy()
        stamp(canvas, shape_mask(shape, side, side), row, column, COLOURS[colour])
        masks.append((canvas != before).any(axis=-1))
    return canvas, masks


RED, BLUE, OTHER = ("circle", "red", 4, 4, 16), ("square", "blue", 20, 40, 14), ("star", "red", 28, 6, 18)
IMAGE, (CIRCLE, SQUARE, STAR) = scene(RED, BLUE, OTHER)


def ask(specialist, module, *said, image=IMAGE, seed=0, **more):
    data = np.asarray(image)
    media = None if image is None else Artefact("image" if data.ndim == 3 else "video", data)
    request = Request(module=module, actions=tuple(Action(*one) for one in said), media=media, **more)
    return specialist.run(request, seed=seed).artefact


def edit(action, text, **more):
    return ask(ToyPainter(), "image_editing", (action, text), **more).data


def same(image, *things):
    return np.array_equal(image, scene(*things)[0])


def test_words_are_understood():
    found = read_phrase("the leftmost small red discs at the top left")
    assert found == Phrase(colour="red", shape="circle", size=0.2, order="left", places=("top", "left"))
    things = read_things("two gray stars and a big yellow plus, with nothing else")
    assert [(each.count, each.colour, each.shape, each.size) for each in things] == [
        (2, "grey", "star", None),
        (1, "yellow", "cross", 0.4),
    ]


@pytest.mark.parametrize("side", [12, 23])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_drawn_shape_is_recognised(shape, side):
    mask = shape_mask(shape, side, side)
    assert min(mask.any(axis=0).sum(), mask.any(axis=1).sum()) >= side - 2
    assert best_shape(np.pad(mask, 3)) == shape


def test_things_are_found_by_colour_and_part():
    found = things_in(IMAGE)
    assert [(each.colour, each.shape) for each in found] == [
        ("red", "circle"),
        ("red", "star"),
        ("blue", "square"),
    ]
    assert np.array_equal(found[0].mask, CIRCLE)
    assert found[2].box == (20, 40, 34, 54)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the red circle", [CIRCLE]),
        ("blue", [SQUARE]),
        ("the star", [STAR]),
        ("everything red", [CIRCLE, STAR]),
        ("the rightmost thing", [SQUARE]),
        ("the topmost red thing", [CIRCLE]),
        ("the largest thing", [CIRCLE]),
        ("everything", [CIRCLE, STAR, SQUARE]),
    ],
)
def test_segmentation_by_words(text, expected):
    masks = ask(ToySegmenter(), "image_segmentation", ("segment", text))
    assert np.array_equal(masks.data[:, 0], expected)
    assert len(masks.labels) == len(expected)


def test_segmentation_by_a_region_needs_no_known_word():
    near = np.zeros(IMAGE.shape[:2], dtype=bool)
    near[20:26, 38:44] = True
    masks = ask(ToySegmenter(), "image_segmentation", ("segment", "this vase"), mask=near)
    assert np.array_equal(masks.data[0, 0], SQUARE)


def test_removing_leaves_the_background():
    assert same(edit("remove", "the red circle"), BLUE, OTHER)
    assert same(edit("remove", "", mask=CIRCLE | STAR), BLUE)
    assert same(edit("edit", "delete the star please"), RED, BLUE)


@pytest.mark.parametrize(
    "text", ["the red circle to green", "the circle green", "the leftmost circle into green"]
)
def test_recolouring(text):
    assert same(edit("recolour", text), ("circle", "green", *RED[2:]), BLUE, OTHER)


def test_recolouring_what_is_pointed_at():
    assert same(edit("recolour", "it to green", mask=SQUARE), RED, ("square", "green", *BLUE[2:]), OTHER)


def test_moving():
    moved = edit("move", "the blue square to the left by 10")
    assert same(moved, RED, ("square", "blue", 20, 30, 14), OTHER)
    assert same(edit("move", "the blue square up"), RED, ("square", "blue", 8, 40, 14), OTHER)
    gone = edit("move", "the blue square right by 60")
    assert same(gone, RED, OTHER)


def test_adding_and_replacing():
    added = edit("add", "a small green cross at the top right")
    (thing,) = [each for each in things_in(added) if each.colour == "green"]
    assert thing.shape == "cross"
    assert thing.centre[0] < 12
    assert thing.centre[1] > 50
    box = np.zeros(IMAGE.shape[:2], dtype=bool)
    box[2:14, 44:56] = True
    assert same(edit("add", "a green circle", mask=box), RED, BLUE, OTHER, ("circle", "green", 2, 44, 12))
    replaced = edit("replace", "the blue square with a yellow circle")
    assert same(replaced, RED, ("circle", "yellow", *BLUE[2:]), OTHER)


@pytest.mark.parametrize(
    "style", ["greyscale", "sepia", "negative", "pixelated", "blurred", "poster", "night", "pencil"]
)
def test_styles(style):
    styled = edit("restyle", f"as {style}")
    assert styled.shape == IMAGE.shape
    assert not np.array_equal(styled, IMAGE)
    only = edit("restyle", style, mask=SQUARE)
    assert np.array_equal(only[~SQUARE], IMAGE[~SQUARE])
    assert np.array_equal(only[SQUARE], styled[SQUARE])


def test_generating():
    image = ask(
        ToyPainter(),
        "text_to_image",
        ("generate", "a large red circle at the left and two small blue stars on a green background"),
        image=None,
        args={"size": "96x64"},
    ).data
    assert image.shape == (64, 96, 3)
    assert tuple(image[0, 0]) == COLOURS["green"]
    found = sorted((each.colour, each.shape) for each in things_in(image))
    assert found == [("blue", "star"), ("blue", "star"), ("red", "circle")]


def test_the_seed_decides_what_the_words_leave_open():
    images = [
        ask(ToyPainter(), "text_to_image", ("generate", "a circle"), image=None, seed=seed).data
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_restoration():
    noisy = IMAGE.copy()
    noisy[::7, ::5] = 0
    clean = ask(ToyPainter(), "restoration", ("denoise", ""), image=noisy).data
    assert np.abs(clean.astype(int) - IMAGE).mean() < 0.5 * np.abs(noisy.astype(int) - IMAGE).mean()
    larger = ask(ToyPainter(), "restoration", ("upscale", ""), args={"scale": 3}).data
    assert larger.shape == (144, 192, 3)
    assert ask(ToyPainter(), "restoration", ("deblur", "")).data.shape == IMAGE.shape


def test_filling_goes_on_from_the_edge():
    image = np.tile(np.linspace(0, 200, 20).astype(np.uint8)[:, None, None], (1, 20, 3))
    hole = np.zeros((20, 20), dtype=bool)
    hole[5:15, 5:15] = True
    assert np.abs(fill_in(image, hole).astype(int) - image).max() < 60
    assert np.array_equal(fill_in(image, np.ones((20, 20), dtype=bool)), image)


def video():
    return np.stack([scene(("circle", "red", 4, 4 + 6 * t, 16), BLUE)[0] for t in range(5)])


def test_a_image_moves_and_turns_back_at_the_edge():
    moving = ask(
        ToyAnimator(), "image_to_video", ("animate", "the blue square moves right"), args={"length": 6}
    ).data
    assert np.array_equal(moving[0], IMAGE)
    columns = [things_in(frame)[-1].box[1] for frame in moving]
    assert columns == [40, 44, 48, 48, 44, 40]
    assert same(moving[1], RED, ("square", "blue", 20, 44, 14), OTHER)


def test_tracking_finds_the_thing_in_every_frame():
    truth = [scene(("circle", "red", 4, 4 + 6 * t, 16))[1][0] for t in range(5)]
    masks = ask(ToySegmenter(), "video_segmentation", ("track", "the red circle"), image=video())
    assert np.array_equal(masks.data[0], truth)
    part = ask(ToySegmenter(), "video_segmentation", ("track", "red"), image=video(), frames=(1, 2))
    assert part.data[0].any(axis=(1, 2)).tolist() == [False, True, True, False, False]


def test_tracking_from_a_region_goes_both_ways():
    from vitron.protocol.contract import BoxRegion

    truth = [scene(("circle", "red", 4, 4 + 6 * t, 16))[1][0] for t in range(5)]
    region = BoxRegion(x0=0.3, y0=0.1, x1=0.4, y1=0.3, frame=2)
    masks = ask(
        ToySegmenter(), "video_segmentation", ("track", "this"), image=video(), mask=truth[2], region=region
    )
    assert np.array_equal(masks.data[0], truth)


def test_clips_are_edited_frame_by_frame():
    said = ("foreground", "a green one"), ("background", "night")
    both = ask(ToyAnimator(), "video_editing", *said, image=video())
    circle, square = scene(("circle", "red", 4, 22, 16), BLUE)[1]
    assert (both.data[3][~(circle | square)] == COLOURS["black"]).all()
    assert (both.data[3][circle | square].argmax(axis=-1) == 1).all()
    gone = ask(
        ToyAnimator(), "video_editing", ("remove", "the red circle"), image=video(), frames=(1, 9)
    ).data
    assert np.array_equal(gone[0], video()[0])
    assert all(same(frame, BLUE) for frame in gone[1:4])
    drawn = ask(ToyAnimator(), "text_to_video", ("generate", "a red circle moving down"), image=None)
    assert drawn.data.shape == (8, 64, 64, 3)
    assert len({things_in(frame)[0].box[0] for frame in drawn.data}) > 3


@pytest.mark.parametrize(
    ("toy", "module", "said", "more", "message"),
    [
        (ToyPainter, "text_to_image", ("generate", "a dog"), {"image": None}, "draws circles, squares"),
        (ToyPainter, "text_to_image", ("generate", "a star"), {"args": {"size": "9999x9"}}, "got 9999x9"),
        (ToyPainter, "image_editing", ("remove", "the dog"), {}, "colours and shapes, not 'the dog'"),
        (ToyPainter, "image_editing", ("remove", "the green star"), {}, "finds nothing like"),
        (ToyPainter, "image_editing", ("move", "the green star to the left"), {}, "like 'the green star' in"),
        (ToyPainter, "image_editing", ("recolour", "the circle"), {}, "needs a colour"),
        (ToyPainter, "image_editing", ("recolour", "red"), {}, "needs a thing to recolour"),
        (ToyPainter, "image_editing", ("move", "the circle"), {}, "needs a direction to move"),
        (ToyPainter, "image_editing", ("add", "something"), {}, "adds a shape"),
        (ToyPainter, "image_editing", ("replace", "the circle"), {}, "replaces one thing with a shape"),
        (ToyPainter, "image_editing", ("restyle", "in oil"), {}, "the known styles are grey"),
        (ToyPainter, "image_editing", ("remove", "x"), {"image": None}, "needs an image"),
        (ToyPainter, "restoration", ("upscale", ""), {"args": {"scale": 99}}, "enlarges by 1 to 8"),
        (ToySegmenter, "image_segmentation", ("segment", "the dog"), {}, "colours and shapes"),
        (ToySegmenter, "image_segmentation", ("segment", "green"), {}, "finds nothing like 'green'"),
        (ToySegmenter, "video_segmentation", ("track", "red"), {"frames": (9, 9)}, "no frame 9: the last"),
        (ToySegmenter, "image_segmentation", ("segment", "red"), {"image": None}, "needs an image"),
        (ToyAnimator, "image_to_video", ("animate", "x"), {"image": None}, "needs an image"),
        (ToyAnimator, "image_to_video", ("animate", "red"), {"args": {"length": 0}}, "1 to 512 frames"),
        (ToyAnimator, "video_editing", ("remove", "red"), {"image": None}, "needs a video"),
        (
            ToyAnimator,
            "text_to_video",
            ("generate", "a star"),
            {"image": None, "args": {"size": "2000x2000", "length": 99}},
            "100000000 pixels in all frames together, got 396000000",
        ),
        (ToySegmenter, "image_segmentation", ("segment", "red"), {"image": blank(1, 4_000_001)}, "4000000"),
    ],
)
def test_what_a_toy_cannot_do_it_says(toy, module, said, more, message):
    with pytest.raises(UnsupportedRequestError, match=message):
        ask(toy(), module, said, **more)


def test_an_empty_image_holds_nothing():
    assert things_in(blank(8, 8)) == []
    assert tuple(blank(1, 1)[0, 0]) == BACKGROUND


def test_no_toy_runs_the_calls_of_a_user():
    assert not [name for name in SpecialistRegistry().discover().names if "toy" in name]


@pytest.mark.parametrize(
    ("specialist", "module", "said"),
    [
        (ToySegmenter, "image_segmentation", ("segment", "the red circle")),
        (ToyPainter, "image_editing", ("recolour", "the red circle to blue")),
        (ToyPainter, "image_editing", ("remove", "the star")),
    ],
)
def test_something_like_a_photograph_is_refused(specialist, module, said):
    rng = np.random.default_rng(0)
    large = np.asarray(Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((320, 240)))
    with pytest.raises(UnsupportedRequestError, match="know drawn images, and this one has more than"):
        ask(specialist(), module, said, image=large)
