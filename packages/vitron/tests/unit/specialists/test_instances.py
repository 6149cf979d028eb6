# SPDX-License-Identifier: Apache-2.0
"""Plurals, the mask head, and models for photographs that find several instances."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from vitron.errors import NotSetUpError, SpecialistError, UnsupportedRequestError
from vitron.protocol.contract import BoxRegion, SpecialistSpec
from vitron.protocol.media import Artefact
from vitron.protocol.regions import rasterise
from vitron.session.instances import list_instances
from vitron.specialists import Action, Request, Result, SpecialistOptions, SpecialistRegistry
from vitron.specialists.adapters.diffeat import DiffeatTracker
from vitron.specialists.adapters.grounding_dino import GroundedSam, GroundingDino
from vitron.specialists.adapters.itaclip import ItaclipSegmenter
from vitron.specialists.adapters.sam import SamSegmenter, prompts_of
from vitron.specialists.adapters.sam3 import Sam3Segmenter
from vitron.specialists.adapters.sam3_video import Sam3VideoTracker
from vitron.specialists.adapters.sam_video import SamVideoTracker
from vitron.specialists.instances import choose_instances, is_plural, label_of, split_instances
from vitron.specialists.mask_head import MaskHeadSpecialist

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries about their own changes
BOX = BoxRegion(x0=0.1, y0=0.1, x1=0.4, y1=0.5)
SIGNAL = np.ones((8, 4), dtype=np.float32)


def ask(text, media, region=None, mask=None, module="image_segmentation"):
    mask = rasterise(region, *media.size) if region is not None else mask
    return Request(
        module=module, actions=(Action("segment", text, "segment"),), media=media, region=region, mask=mask
    )


def squares(*places, size=(48, 64), side=8):
    """A mask with squares at (row, column)."""
    mask = np.zeros(size, dtype=bool)
    for row, column in places:
        mask[row : row + side, column : column + side] = True
    return mask


# -- plurals


@pytest.mark.parametrize(
    ("text", "plural", "label"),
    [
        ("all red circles", True, "red circles"),
        ("All dogs", True, "dogs"),
        ("the ball", False, "the ball"),
        ("allergy pills", False, "allergy pills"),
        ("", False, "region"),
    ],
)
def test_a_plural_begins_with_all(image, text, plural, label):
    request = ask(text, image)
    assert (is_plural(request), label_of(request)) == (plural, label)


def test_instances_are_connected_parts_without_specks():
    mask = squares((2, 3), (20, 40), (30, 10))
    mask[47, 63] = True  # 1 of 3,072 pixels
    mask[10, 11] = True  # touches the first at a corner
    parts = split_instances(mask[None])
    assert [tuple(np.argwhere(part[0])[0]) for part in parts] == [(2, 3), (20, 40), (30, 10)]
    assert parts[0].sum() == 65
    assert not np.logical_or.reduce(parts)[0, 47, 63]
    assert split_instances(np.zeros((2, 4, 4), dtype=bool)) == []
    # in a video a part that moves is one instance
    moving = np.stack([squares((2, 3 + 4 * step), (30, 50)) for step in range(4)])
    assert [part.shape for part in split_instances(moving)] == [(4, 48, 64)] * 2


@pytest.mark.parametrize(
    ("text", "region", "mask", "expected"),
    [
        ("all dogs", None, None, [2, 0]),  # the second is the third again, less sure
        ("the dog", None, None, [2]),
        ("the dog", None, squares((2, 5)), [0]),
        ("the dog", None, squares((40, 55)), [2]),
        ("the dog", BOX, squares((2, 5)), [0]),
        ("the dog", BOX, squares((40, 55)), []),
        ("all dogs", BOX, squares((2, 5)), [0]),
    ],
)
def test_what_a_request_means_of_what_was_found(image, text, region, mask, expected):
    """A region of the user has to be touched; the mask of signals is a hint."""
    request = Request(
        module="image_segmentation", actions=(Action("segment", text),), media=image, region=region, mask=mask
    )
    instances = [squares((2, 3)), squares((20, 40)), squares((20, 40)), squares()]
    assert choose_instances(request, instances, [0.5, 0.6, 0.7, 0.9]) == expected


def test_the_mask_head_gives_each_part_of_a_plural(image, video):
    union = squares((2, 3), (20, 40), (30, 10))
    head = MaskHeadSpecialist(lambda signal, module, media: np.stack([union] * media.num_frames))
    every = head.run(ask("all blue squares", image), signal=SIGNAL).artefact
    assert (every.data.shape, every.labels) == ((3, 1, 48, 64), ("blue squares",) * 3)
    assert np.array_equal(every.joint_mask(), union)
    boxes = [instance["frames"][0]["box"] for instance in list_instances(every)]
    assert boxes[0] == [3 / 64, 2 / 48, 11 / 64, 10 / 48]
    one = head.run(ask("the blue square", image), signal=SIGNAL).artefact
    assert np.array_equal(one.data, union[None, None])
    tracked = head.run(ask("all squares", video, module="video_segmentation"), signal=SIGNAL).artefact
    assert tracked.data.shape == (3, 4, 48, 64)
    empty = MaskHeadSpecialist(lambda signal, module, media: np.zeros((1, 48, 64), dtype=bool))
    for text in ("all squares", "the square"):
        with pytest.raises(UnsupportedRequestError, match="the mask head finds nothing like"):
            empty.run(ask(text, image), signal=SIGNAL)


def test_the_mask_head_works_on_the_part_of_a_video_that_is_meant(video):
    head = MaskHeadSpecialist(lambda signal, module, media: np.ones((media.num_frames, 48, 64), dtype=bool))
    request = ask("the square", video, module="video_segmentation")
    for frames, seen in (((1, 2), [False, True, True, False]), ((2, 70), [False, False, True, True])):
        found = head.run(replace(request, frames=frames), signal=SIGNAL).artefact.data[0]
        assert found.any(axis=(1, 2)).tolist() == seen
    with pytest.raises(UnsupportedRequestError, match="there is no frame 30: the last one is 3"):
        head.run(replace(request, frames=(30, 70)), signal=SIGNAL)


def test_trackers_of_a_mask_give_each_part_of_a_plural(models, video):
    mask = squares((2, 3), (30, 48))
    for tracker in (SamVideoTracker(models["sam_video"]), DiffeatTracker()):
        tracker.load("cpu", "auto")
        request = ask("all squares", video, mask=mask, module="video_segmentation")
        found = tracker.run(request).artefact
        assert found.labels == ("squares", "squares"), tracker.name
        assert found.data.shape == (2, 4, 48, 64)
        one = tracker.run(ask("the squares", video, mask=mask, module="video_segmentation")).artefact
        assert one.labels == ("the squares",)


def test_itaclip_gives_each_part_of_a_plural():
    rows, columns = np.mgrid[:64, :96]
    data = np.full((64, 96, 3), 240, dtype=np.uint8)
    for at in (20, 74):
        data[(rows - 32) ** 2 + (columns - at) ** 2 <= 120] = (214, 40, 40)
    segmenter = ItaclipSegmenter()
    segmenter.load("cpu", "auto")
    found = segmenter.run(ask("all red circle", Artefact("image", data))).artefact
    assert found.data.shape == (2, 1, 64, 96)


# -- who is asked


class Named:
    """A specialist with a model of the user that needs a region."""

    def __init__(self, refuses=False):
        self.seen, self.refuses = [], refuses
        self.spec = SpecialistSpec(
            name="named",
            summary="s",
            tasks=("image_segmentation", "video_segmentation"),
            outputs=("masks",),
            licence="mine",
            preference=30,
            needs_region=True,
        )

    def load(self, device, dtype):
        pass

    def unload(self):
        pass

    def run(self, request, *, signal=None, seed=0):
        self.seen.append(request)
        if self.refuses:
            raise UnsupportedRequestError("no photographs here")
        return Result(Artefact("masks", request.mask[None, None], ("x",)))


@pytest.fixture
def registry_of():
    head = squares((2, 3))

    def registry(named, **options):
        located = []

        def locate(module, media, signal):
            located.append(media)
            return head

        made = SpecialistRegistry(locate=locate, **options)
        made.register("mask-head", lambda: MaskHeadSpecialist(lambda signal, module, media: head[None]))
        made.register("named", lambda: named)
        made.located = located
        return made

    return registry


def test_a_named_specialist_is_asked_before_the_mask_head(registry_of, image):
    named = Named()
    outcome = registry_of(named).run(ask("the square", image), signal=SIGNAL)
    assert outcome.specialist == "named"
    # the mask head gives the region alone
    assert np.array_equal(named.seen[0].mask, squares((2, 3)))
    assert named.seen[0].region is None
    # what the user drew comes first
    registry_of(named).run(ask("the square", image, BOX), signal=SIGNAL)
    assert np.array_equal(named.seen[1].mask, rasterise(BOX, 48, 64))
    refused = registry_of(Named(refuses=True)).run(ask("the square", image), signal=SIGNAL)
    assert (refused.specialist, refused.failures) == ("mask-head", ("no photographs here",))
    options = SpecialistOptions(specialist=("image_segmentation=mask-head",))
    chosen = options.apply(registry_of(named))
    assert chosen.run(ask("the square", image), signal=SIGNAL).specialist == "mask-head"
    assert chosen.for_module("video_segmentation") == ("named", "mask-head")


def test_a_sam_that_the_user_set_is_asked_before_the_mask_head(models, image, monkeypatch):
    head = squares((2, 3))
    asked = []

    def mask(signal, module, media):
        asked.append(module)
        return head[None]

    def registry(*named):
        made = SpecialistRegistry(locate=lambda module, media, signal: head)
        made.register("mask-head", lambda: MaskHeadSpecialist(mask), origin="vitron")
        return SpecialistOptions(specialist=named).apply(made.discover())

    monkeypatch.setenv("VITRON_SAM_MODEL", models["sam2"])
    request = ask("the square", image)
    for named in ((), ("sam",), ("image_segmentation=sam",)):
        outcome = registry(*named).run(request, signal=SIGNAL)
        assert (outcome.specialist, outcome.failures) == ("sam", ())
        assert "expected IoU" in outcome.result.note
    assert asked == []
    assert registry("mask-head").run(request, signal=SIGNAL).specialist == "mask-head"
    assert asked == ["image_segmentation"]
    monkeypatch.delenv("VITRON_SAM_MODEL")
    assert registry().run(request, signal=SIGNAL).specialist == "mask-head"


def test_the_region_of_a_video_is_on_the_frame_where_its_part_begins(registry_of, video):
    made = registry_of(Named())
    request = ask("the square", video, module="video_segmentation")
    made.run(
        Request(module=request.module, actions=request.actions, media=video, frames=(2, 3)), signal=SIGNAL
    )
    assert np.array_equal(made.located[0].frames[0], video.frames[2])


# -- models for photographs


def test_the_parts_of_a_mask_are_objects_of_sam(models, image):
    mask = squares((2, 3), (20, 40), (30, 10))
    prompts = prompts_of(ask("all squares", image, mask=mask), "sam")
    assert prompts["input_boxes"][0] == [[3, 2, 11, 10], [40, 20, 48, 28], [10, 30, 18, 38]]
    assert np.shape(prompts["input_points"]) == (1, 3, 8, 2)
    assert np.shape(prompts["input_labels"]) == (1, 3, 8)
    for name in ("sam", "sam2"):
        segmenter = SamSegmenter(models[name])
        segmenter.load("cpu", "auto")
        every = segmenter.run(ask("all squares", image, mask=mask))
        assert (every.artefact.data.shape, every.artefact.labels) == ((3, 1, 48, 64), ("squares",) * 3)
        assert every.note.count(".") == 3
        assert segmenter.run(ask("the square", image, mask=mask)).artefact.data.shape == (1, 1, 48, 64)
        # a region of the user is one object, whatever it is called
        assert segmenter.run(ask("all squares", image, BOX)).artefact.data.shape == (1, 1, 48, 64)


@pytest.mark.parametrize(("kind", "folder"), [(Sam3Segmenter, "sam3"), (GroundingDino, "grounding_dino")])
def test_a_text_finds_instances(models, image, kind, folder):
    segmenter = kind(models[folder])
    segmenter.load("cpu", "auto")
    every = segmenter.run(ask("all dogs", image))
    count = len(every.artefact.data)
    assert count > 1
    assert every.artefact.labels == ("dogs",) * count
    scores = [float(score) for score in every.note.removeprefix("scores ").split(", ")]
    assert len(scores) == count
    assert scores == sorted(scores, reverse=True)
    # not a plural: the surest, or the one that the region overlaps most
    (best,) = segmenter.run(ask("dogs", image)).artefact.data
    assert np.array_equal(best, every.artefact.data[0])
    for instance in every.artefact.data:
        (found,) = segmenter.run(ask("dogs", image, mask=instance[0])).artefact.data
        assert np.array_equal(found, instance)
    nowhere = BoxRegion(x0=0.99, y0=0.99, x1=1, y1=1)
    if not every.artefact.data[:, 0, -1, -1].any():
        with pytest.raises(UnsupportedRequestError, match="finds nothing like 'dogs'"):
            segmenter.run(ask("dogs", image, nowhere))
    segmenter.unload()
    with pytest.raises(SpecialistError, match="must be loaded"):
        segmenter.run(ask("dogs", image))


def test_a_text_finds_tracks(models, video):
    tracker = Sam3VideoTracker(models["sam3_video"])
    tracker.load("cpu", "auto")
    every = tracker.run(ask("all dogs", video, module="video_segmentation"))
    count = len(every.artefact.data)
    assert count > 1
    assert every.artefact.data.shape == (count, 4, 48, 64)
    assert every.artefact.labels == ("dogs",) * count
    (best,) = tracker.run(ask("dogs", video, module="video_segmentation")).artefact.data
    assert np.array_equal(best, every.artefact.data[0])
    with_region = ask("dogs", video, mask=every.artefact.data[-1].any(axis=0), module="video_segmentation")
    (found,) = tracker.run(with_region).artefact.data
    assert np.array_equal(found, every.artefact.data[-1])
    part = Request(module="video_segmentation", actions=with_region.actions, media=video, frames=(1, 2))
    shown = tracker.run(part).artefact.data[0].any(axis=(1, 2))
    assert not shown[[0, 3]].any()
    assert shown[1]
    outside = BoxRegion(x0=0, y0=0, x1=1, y1=1, frame=3)
    with pytest.raises(UnsupportedRequestError, match="frame 3, outside of 1 to 2"):
        tracker.run(replace(part, region=outside, mask=np.ones((48, 64), dtype=np.bool_)))
    other = tracker.run(ask("all zebra crossings", video, module="video_segmentation")).artefact.data
    assert not np.array_equal(other, every.artefact.data)


def test_words_reach_the_models(models, image):
    """Another text is another prompt."""
    for kind, folder in ((Sam3Segmenter, "sam3"), (GroundingDino, "grounding_dino")):
        segmenter = kind(models[folder])
        segmenter.load("cpu", "auto")
        one, other = (segmenter.run(ask(text, image)) for text in ("all dogs", "all zebra crossings"))
        assert one.note != other.note or not np.array_equal(one.artefact.data, other.artefact.data)


def test_detection_and_segmentation_together(models, image, monkeypatch):
    both = GroundedSam(models["grounding_dino"], models["sam2"])
    boxes = GroundingDino(models["grounding_dino"])
    for each in (both, boxes):
        each.load("cpu", "auto")
    every, rectangles = (each.run(ask("all dogs", image)) for each in (both, boxes))
    assert every.artefact.data.shape == rectangles.artefact.data.shape
    assert every.note == rectangles.note
    assert not np.array_equal(every.artefact.data, rectangles.artefact.data)
    # a region of the user is the prompt of SAM itself
    assert "expected IoU" in both.run(ask("this", image, BOX)).note
    assert both.spec.memory_bytes > boxes.spec.memory_bytes
    monkeypatch.delenv("VITRON_SAM_MODEL", raising=False)
    with pytest.raises(NotSetUpError, match="VITRON_SAM_MODEL"):
        GroundedSam(models["grounding_dino"])


def test_models_that_are_set_are_found_by_their_names(models, monkeypatch):
    monkeypatch.setenv("VITRON_GROUNDING_DINO_MODEL", models["grounding_dino"])
    found = SpecialistRegistry().discover()
    assert found.for_module("image_segmentation") == ("grounding-dino", "random-walker", "itaclip")
    assert "VITRON_SAM_MODEL" in found.absent["grounded-sam"]
    monkeypatch.setenv("VITRON_SAM_MODEL", models["sam2"])
    monkeypatch.setenv("VITRON_SAM3_MODEL", models["sam3"])
    chosen = SpecialistOptions(specialist=("image_segmentation=sam3",)).apply(SpecialistRegistry().discover())
    assert chosen.for_module("image_segmentation") == (
        "sam3",
        "grounded-sam",
        "grounding-dino",
        "sam",
        "random-walker",
        "itaclip",
    )


PHOTO_MODELS = [
    (SamSegmenter, "sam"),
    (SamSegmenter, "sam2"),
    (Sam3Segmenter, "sam3"),
    (GroundingDino, "grounding_dino"),
    (SamVideoTracker, "sam_video"),
    (Sam3VideoTracker, "sam3_video"),
]


@pytest.mark.parametrize(("kind", "folder"), PHOTO_MODELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_have_the_dtype_that_is_asked_for_and_are_freed(models, image, video, kind, folder, dtype):
    specialist = kind(models[folder])
    specialist.load("cpu", dtype)
    model = specialist._detect.model if kind is GroundingDino else specialist._model
    assert model.dtype == getattr(torch, dtype)
    assert not model.training
    is_video = kind in (SamVideoTracker, Sam3VideoTracker)
    module = "video_segmentation" if is_video else "image_segmentation"
    request = ask("all dogs", video if is_video else image, mask=rasterise(BOX, 48, 64), module=module)
    assert specialist.run(request).artefact.kind == "masks"
    held = weakref.ref(model)
    del model
    specialist.unload()
    gc.collect()
    assert held() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("kind", "folder"), PHOTO_MODELS)
def test_unloading_frees_the_memory_of_a_device(models, image, video, kind, folder):
    before = torch.cuda.memory_allocated()
    specialist = kind(models[folder])
    specialist.load("cuda", "auto")
    is_video = kind in (SamVideoTracker, Sam3VideoTracker)
    module = "video_segmentation" if is_video else "image_segmentation"
    request = ask("all dogs", video if is_video else image, mask=rasterise(BOX, 48, 64), module=module)
    assert specialist.run(request).artefact.kind == "masks"
    assert torch.cuda.memory_allocated() > before
    specialist.unload()
    assert torch.cuda.memory_allocated() == before
