# SPDX-License-Identifier: Apache-2.0
import logging
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from common_kernels.runtime.hub import ModelNotFoundError
from vitron.errors import NotSetUpError, SpecialistError, UnsupportedRequestError
from vitron.protocol.contract import BoxRegion, PointsRegion, PolygonRegion
from vitron.protocol.media import Artefact
from vitron.protocol.regions import rasterise
from vitron.specialists import Action, Request, SpecialistRegistry
from vitron.specialists.adapters import base, diffusers_base
from vitron.specialists.adapters.diffeat import DiffeatTracker
from vitron.specialists.adapters.diffusers_inpaint import DiffusersInpaint, prompt_of
from vitron.specialists.adapters.diffusers_instruct import DiffusersInstruct
from vitron.specialists.adapters.diffusers_text_to_image import DiffusersTextToImage
from vitron.specialists.adapters.grounding_dino import GroundingDino
from vitron.specialists.adapters.itaclip import ItaclipSegmenter, class_name
from vitron.specialists.adapters.pixelsmith import PixelsmithPainter
from vitron.specialists.adapters.sam import SamSegmenter, prompts_of
from vitron.specialists.adapters.sam_video import SamVideoTracker
from vitron.specialists.adapters.semanir import SemanirRestorer

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries about their own changes
BOX = BoxRegion(x0=0.1, y0=0.1, x1=0.4, y1=0.5)


def ask(module, action, text, media=None, region=None, **args):
    mask = None if region is None else rasterise(region, *media.size)
    return Request(
        module=module,
        actions=(Action(action, text, action),),
        media=media,
        region=region,
        mask=mask,
        args=args,
    )


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.fixture(scope="module")
def tiny_sd(models):
    painter = DiffusersTextToImage(models["stable_diffusion"], steps=1, signals="replace")
    painter.load("cpu", "auto")
    return painter


def test_importing_the_adapters_loads_no_library():
    code = (
        "import sys; from vitron.specialists import SpecialistRegistry as R;"
        "print(len(R().discover().absent) > 3);"
        "print([m for m in ('torch', 'diffusers', 'transformers', 'itaclip', 'semanir') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "[]"]


def test_one_without_a_model_or_a_package_says_what_it_needs(monkeypatch):
    for name in ("SAM", "DIFFUSERS_TEXT_TO_IMAGE"):
        monkeypatch.delenv(f"VITRON_{name}_MODEL", raising=False)
    with pytest.raises(NotSetUpError, match="VITRON_SAM_MODEL"):
        SamSegmenter()
    registry = SpecialistRegistry().discover()
    assert "VITRON_DIFFUSERS_TEXT_TO_IMAGE_MODEL" in registry.absent["diffusers-text-to-image"]
    assert registry.problems == {}
    assert "sam" not in registry.for_module("image_segmentation")
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    with pytest.raises(NotSetUpError, match=r'pip install "vitron\[specialists\]"'):
        SemanirRestorer()


@pytest.mark.parametrize("kind", [SamSegmenter, GroundingDino, DiffusersInstruct])
def test_a_model_that_is_nowhere_is_refused_at_once(kind):
    """Without asking the hub, whose client would try for minutes."""
    with pytest.raises(ModelNotFoundError, match="'nosuch': it is not a folder nor a hub id"):
        kind("nosuch").load("cpu", "auto")


def test_a_named_model_is_asked_before_the_bundled_ones(monkeypatch, models):
    before = SpecialistRegistry().discover()
    assert before.for_module("image_segmentation") == ("random-walker", "itaclip")
    assert before.for_module("text_to_image") == ("pixelsmith",)
    monkeypatch.setenv("VITRON_DIFFUSERS_TEXT_TO_IMAGE_MODEL", models["stable_diffusion"])
    monkeypatch.setenv("VITRON_SAM_MODEL", models["sam2"])
    after = SpecialistRegistry().discover()
    assert after.for_module("image_segmentation") == ("sam", "random-walker", "itaclip")
    assert after.for_module("text_to_image") == ("diffusers-text-to-image", "pixelsmith")
    assert after.spec("diffusers-text-to-image").memory_bytes > 500_000
    preferred = SpecialistRegistry(prefer=["itaclip"]).discover()
    assert preferred.for_module("image_segmentation")[0] == "itaclip"


def test_a_bundled_model_says_what_it_does_not_know():
    rng = np.random.default_rng(0)
    noise = Artefact("image", rng.integers(0, 255, (40, 40, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1))
    with pytest.raises(SpecialistError, match=r"the small model of itaclip does not know dog"):
        SpecialistRegistry().discover().run(ask("image_segmentation", "segment", "the red dog", noise))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the leftmost bicycle that leans on the wall", ("bicycle", "left")),
        ("the dog on the left", ("dog", "left")),
        ("the man to the left of the car", ("man", None)),
        ("all red cars", ("red cars", None)),
        ("the largest star at the top", ("star", "largest")),
    ],
)
def test_a_class_is_what_is_left_without_relations(text, expected):
    assert class_name(text) == expected


def test_itaclip_marks_what_is_named(image, disc):
    segmenter = ItaclipSegmenter()
    segmenter.load("cpu", "auto")
    both = segmenter.run(ask("image_segmentation", "segment", "the red circle and the blue square", image))
    assert both.artefact.labels == ("red circle", "blue square")
    assert iou(both.artefact.data[0, 0], disc[0]) > 0.9
    away = BoxRegion(x0=0.9, y0=0.0, x1=1.0, y1=0.1)
    with pytest.raises(UnsupportedRequestError, match="finds no red circle"):
        segmenter.run(ask("image_segmentation", "segment", "the red circle", image, away))
    with pytest.raises(UnsupportedRequestError, match="does not know dog"):
        segmenter.run(ask("image_segmentation", "segment", "the dog", image))
    segmenter.unload()
    with pytest.raises(SpecialistError, match="must be loaded"):
        segmenter.run(ask("image_segmentation", "segment", "the red circle", image))


def test_an_order_chooses_among_parts():
    segmenter = ItaclipSegmenter()
    segmenter.load("cpu", "auto")
    rows, columns = np.mgrid[:64, :96]
    data = np.full((64, 96, 3), 240, dtype=np.uint8)
    discs = [(rows - 32) ** 2 + (columns - at) ** 2 <= 120 for at in (20, 74)]
    data[discs[0] | discs[1]] = (214, 40, 40)
    found = segmenter.run(
        ask("image_segmentation", "segment", "the rightmost red circle", Artefact("image", data))
    )
    mask = found.artefact.data[0, 0]
    assert mask[discs[1]].mean() > 0.8
    assert not mask[discs[0]].any()


def test_semanir_takes_noise_out_and_leaves_the_rest_to_others(image):
    restorer = SemanirRestorer()
    restorer.load("cpu", "auto")
    noise = np.random.default_rng(0).normal(0, 25, image.data.shape)
    noisy = Artefact("image", (image.data + noise).clip(0, 255).astype(np.uint8))
    clean = restorer.run(ask("restoration", "restore", "the image", noisy)).artefact.data
    errors = [np.abs(each.astype(float) - image.data).mean() for each in (noisy.data, clean)]
    assert errors[1] < errors[0] / 2
    for action in ("deblur", "dejpeg", "upscale"):
        with pytest.raises(UnsupportedRequestError, match=f"no model for {action}: set VITRON_SEMANIR_"):
            restorer.run(ask("restoration", action, "", noisy))
    own = SemanirRestorer(models={"deblur": "tiny-denoise"})
    own.load("cpu", "auto")
    assert own.run(ask("restoration", "deblur", "", noisy)).artefact.data.shape == noisy.data.shape


def test_pixelsmith_paints_at_the_size_that_is_asked():
    painter = PixelsmithPainter()
    painter.load("cpu", "auto")
    found = painter.run(ask("text_to_image", "generate", "a red circle", size="50x40"), seed=1)
    assert found.artefact.data.shape == (40, 50, 3)
    with pytest.raises(UnsupportedRequestError, match="knows drawn shapes, not dog"):
        painter.run(ask("text_to_image", "generate", "a dog"))
    with pytest.raises(UnsupportedRequestError, match="at most"):
        painter.run(ask("text_to_image", "generate", "a red circle", size="90000x90000"))


def test_diffeat_follows_a_mask_both_ways(video, disc):
    tracker = DiffeatTracker()
    tracker.load("cpu", "auto")
    region = PolygonRegion(points=((0.1, 0.1), (0.1, 0.1), (0.2, 0.2)), frame=1)
    request = Request(
        module="video_segmentation",
        actions=(Action("track", "the disc", "track"),),
        media=video,
        region=region,
        mask=disc[1],
    )
    masks = tracker.run(request).artefact.data[0]
    assert np.array_equal(masks[1], disc[1])
    assert min(iou(found, true) for found, true in zip(masks, disc, strict=True)) > 0.85
    with pytest.raises(UnsupportedRequestError, match="tracks a region of a frame"):
        tracker.run(ask("video_segmentation", "track", "the disc", video))


def test_sizes_and_signals_of_text_to_image(tiny_sd):
    request = ask("text_to_image", "generate", "a dog", size="70x50")
    plain = tiny_sd.run(request, seed=1).artefact.data
    assert plain.shape == (50, 70, 3)
    assert not np.array_equal(plain, tiny_sd.run(request, seed=2).artefact.data)
    signal = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    replaced = tiny_sd.run(request, signal=signal, seed=1)
    assert replaced.note == "signals merged by replace"
    assert not np.array_equal(plain, replaced.artefact.data)
    other_words = tiny_sd.run(ask("text_to_image", "generate", "a cat", size="70x50"), signal=signal, seed=1)
    assert np.array_equal(replaced.artefact.data, other_words.artefact.data)
    odd = tiny_sd.run(request, signal=signal[:, :7], seed=1)
    assert "width 7 do not fit embeddings of 16" in odd.note
    assert np.array_equal(odd.artefact.data, plain)
    with pytest.raises(UnsupportedRequestError, match="8 to 4096 pixels"):
        tiny_sd.run(ask("text_to_image", "generate", "a dog", size="5000x8"))


def test_signals_can_stand_behind_the_words(tiny_sd, monkeypatch):
    monkeypatch.setattr(tiny_sd, "merge", "concat")
    signal = np.ones((3, 16), dtype=np.float32)
    first, second = (
        tiny_sd.run(ask("text_to_image", "generate", word), signal=signal, seed=1)
        for word in ("a dog", "a cat")
    )
    assert first.note == "signals merged by concat"
    assert not np.array_equal(first.artefact.data, second.artefact.data)
    with pytest.raises(SpecialistError, match="merged by off, replace, concat, got 'add'"):
        DiffusersTextToImage("x", signals="add")


def test_what_an_import_of_diffusers_warns_of_is_not_shown(models, monkeypatch, caplog):
    def load_loudly(name):
        logging.getLogger("bitsandbytes").warning("no kernels")
        return import_module(name)

    monkeypatch.setattr(diffusers_base, "import_module", load_loudly)
    DiffusersTextToImage(models["stable_diffusion"]).load("cpu", "float32")
    assert "no kernels" not in caplog.text


def test_inpainting_keeps_what_is_not_marked(models, image):
    painter = DiffusersInpaint(models["stable_diffusion"], steps=2)
    painter.load("cpu", "auto")
    request = ask("image_editing", "replace", "the circle with a star", image, BOX)
    made = painter.run(request, seed=1).artefact.data
    changed = (made != image.data).any(axis=-1)
    assert changed[request.mask].mean() > 0.5
    far = rasterise(BoxRegion(x0=0.5, y0=0.6, x1=1, y1=1), 48, 64)
    assert not changed[far].any()
    for wrong, message in (
        (ask("image_editing", "remove", "it", image), "give one"),
        (ask("image_editing", "move", "it left", image, BOX), "cannot move: an instruction editor"),
    ):
        with pytest.raises(UnsupportedRequestError, match=message):
            painter.run(wrong)
    assert prompt_of(Action("remove", "the dog")).startswith("empty")


def test_an_instruction_editor_changes_images_and_the_frames_that_are_meant(models, image, video):
    editor = DiffusersInstruct(models["instruct"], steps=1)
    editor.load("cpu", "auto")
    made = editor.run(ask("image_editing", "edit", "snow", image, BOX), seed=1).artefact.data
    outside = ~rasterise(BOX, 48, 64)
    assert np.array_equal(made[outside], image.data[outside])
    request = Request(module="video_editing", actions=(Action("edit", "snow"),), media=video, frames=(1, 2))
    frames = editor.run(request).artefact.data
    assert [bool((frames[at] != video.data[at]).any()) for at in range(4)] == [False, True, True, False]


def test_regions_become_prompts_of_sam(image):
    points = PointsRegion(points=((0.25, 0.5), (0.5, 0.5)), positive=(True, False))
    assert prompts_of(ask("image_segmentation", "segment", "", image, points), "sam") == {
        "input_points": [[[[16.0, 24.0], [32.0, 24.0]]]],
        "input_labels": [[[1, 0]]],
    }
    assert prompts_of(ask("image_segmentation", "segment", "", image, BOX), "sam")["input_boxes"] == [
        [pytest.approx([6.4, 4.8, 25.6, 24.0])]
    ]
    line = PolygonRegion(points=((0.1, 0.1), (0.5, 0.1), (0.5, 0.5)))
    assert set(prompts_of(ask("image_segmentation", "segment", "", image, line), "sam")) == {
        "input_boxes",
        "input_points",
        "input_labels",
    }
    with pytest.raises(UnsupportedRequestError, match="give a box, clicks or a scribble"):
        prompts_of(ask("image_segmentation", "segment", "the dog", image), "sam")


def test_sam_2_marks_and_follows(models, image, video):
    segmenter = SamSegmenter(models["sam2"])
    segmenter.load("cpu", "auto")
    assert segmenter.run(ask("image_segmentation", "segment", "it", image, BOX)).artefact.labels == ("it",)
    tracker = SamVideoTracker(models["sam_video"])
    tracker.load("cpu", "auto")
    for region in (
        PointsRegion(points=((0.2, 0.3),), frame=1),
        PolygonRegion(points=((0.1, 0.1), (0.5, 0.1), (0.5, 0.5)), frame=3),
    ):
        made = tracker.run(ask("video_segmentation", "track", "it", video, region)).artefact
        assert made.data.shape == (1, 4, 48, 64)
    outside = Request(
        module="video_segmentation",
        actions=(),
        media=video,
        region=PointsRegion(points=((0.2, 0.3),), frame=3),
        mask=rasterise(BOX, 48, 64),
        frames=(0, 1),
    )
    with pytest.raises(UnsupportedRequestError, match="frame 3, outside of 0 to 1"):
        tracker.run(outside)
