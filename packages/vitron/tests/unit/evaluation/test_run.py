# SPDX-License-Identifier: Apache-2.0
"""Whole evaluations with given messages."""

import numpy as np
import pytest
from common_kernels.runtime.processes import Processes
from PIL import Image
from vitron.data import read_samples, write_samples
from vitron.data.converters.common import assistant_message, call, user_message
from vitron.data.schema import MaskTarget, Sample, SampleMedia, SampleRegion, Targets
from vitron.demo.painters import ToyPainter, ToySegmenter
from vitron.errors import DataError
from vitron.evaluation import TASKS, Embed, ScriptedGenerator, evaluate, read_items
from vitron.protocol.regions import mask_to_box, mask_to_region
from vitron.specialists import SpecialistRegistry

SEGMENT = "Here. <module>B</module><instruction>segment: the red circle</instruction>"


def scene(column=14):
    rows, columns = np.mgrid[:48, :64]
    data = np.full((48, 64, 3), 240, dtype=np.uint8)
    mask = (rows - 16) ** 2 + (columns - column) ** 2 <= 81
    data[mask] = (214, 40, 40)
    data[28:42, 40:54] = (35, 87, 200)
    return data, mask


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Samples of many tasks on one image and one video."""
    folder = tmp_path_factory.mktemp("data")
    images = [scene(14 + 3 * at) for at in range(3)]
    for at, (frame, _) in enumerate(images):
        Image.fromarray(frame).save(folder / f"{at}.png")
    mask = images[0][1]
    box, image = mask_to_box(mask), SampleMedia(path="0.png")
    video = SampleMedia(type="video", path=("0.png", "1.png", "2.png"))
    masks = tuple(mask_to_region(each[1], frame=at) for at, each in enumerate(images))
    tube = tuple(mask_to_box(each[1], frame=at) for at, each in enumerate(images))
    segment = call("image_segmentation", "segment", "the red circle")
    target = Targets(masks=(MaskTarget(masks=(mask_to_region(mask),)),), boxes=(box,))
    edit = call("image_editing", "edit", "nothing")

    def sample(name, task, question, answer, targets, media=(image,), regions=()):
        return Sample(
            id=name, task=task, messages=(question, answer), media=media, regions=regions, targets=targets
        )

    samples = [
        sample(
            f"seg-{at}",
            "referring_segmentation",
            user_message("Segment it."),
            assistant_message("", segment),
            target,
        )
        for at in range(3)
    ]
    samples += [
        sample("box", "referring_box", user_message("Where?"), assistant_message("x"), Targets(boxes=(box,))),
        sample("vqa", "vqa", user_message("Colour?"), assistant_message("red"), Targets(answers=("red",))),
        sample(
            "cap",
            "caption",
            user_message("What?"),
            assistant_message("a red circle"),
            Targets(captions=("a red circle",)),
        ),
        sample(
            "edit",
            "image_editing",
            user_message("Edit."),
            assistant_message("", edit),
            Targets(image="1.png", captions=("x",)),
        ),
        sample(
            "draw",
            "text_to_image",
            user_message("Draw.", media=0),
            assistant_message("x"),
            Targets(),
            media=(),
        ),
        sample("talk", "dialogue", user_message("Hi."), assistant_message("Hello."), Targets()),
        sample("call", "invocation", user_message("Segment it."), assistant_message("", segment), Targets()),
        sample(
            "when",
            "video_grounding",
            user_message("When?"),
            assistant_message("x"),
            Targets(boxes=tube),
            media=(video,),
        ),
        Sample(
            id="track",
            task="video_segmentation",
            messages=(
                user_message("Track this.", regions=1),
                assistant_message("", call("video_segmentation", "track", "it")),
            ),
            media=(video,),
            regions=(SampleRegion(region=masks[0]),),
            targets=Targets(masks=(MaskTarget(masks=masks),)),
        ),
    ]
    assert write_samples(samples, folder) == len(samples)
    return folder


def toys():
    registry = SpecialistRegistry()
    registry.register("toy-painter", ToyPainter)
    registry.register("toy-segmenter", ToySegmenter)
    return registry


def scores(data, task, *replies, **options):
    model = ScriptedGenerator(replies)
    items = read_items(data, task)
    found = evaluate(TASKS[task], items, lambda _: model, specialists=toys(), **options)
    assert found.failures == {}
    return found.scores


def test_segmentation_with_and_without_an_answer(data):
    found = scores(data, "referring_segmentation", SEGMENT, SEGMENT, "I see nothing.")
    assert found["giou"] == pytest.approx(2 / 3)
    assert found["ciou"] == pytest.approx(2 / 3)
    assert found["module_accuracy"] == pytest.approx(2 / 3)
    assert found["execution_rate"] == 1


def test_tracking_leaves_the_given_frame_out(data):
    track = "<module>E</module><instruction>track: the red circle</instruction>"
    assert scores(data, "video_segmentation", track)["j_and_f"] == pytest.approx(1)
    assert scores(data, "video_segmentation", "No.")["j_and_f"] == 0


def test_boxes_and_spans_in_words(data):
    box = mask_to_box(scene()[1])
    codes = ", ".join(str(round(each * 999)) for each in box.corners)
    assert scores(data, "referring_box", f"It is at [{codes}], I think.")["acc@0.5"] == 1
    assert scores(data, "referring_box", "I do not know, [9].") == {
        "acc@0.5": 0,
        "mean_iou": 0,
        "answered": 0,
    }
    when = scores(data, "video_grounding", f"[{codes}] | 0, 1")
    assert when["t_iou"] == pytest.approx(2 / 3)
    assert 0.5 < when["v_iou"] < 2 / 3
    assert scores(data, "video_grounding", "Never.")["miou"] == 0


def test_texts_images_and_calls(data):
    assert scores(data, "vqa", "Red.")["accuracy"] == 1
    assert scores(data, "caption", "a red circle")["meteor"] > 0.9
    assert scores(data, "invocation", SEGMENT)["invocation_exact"] == 1
    assert scores(data, "dialogue", SEGMENT)["spurious_rate"] == 1
    assert scores(data, "dialogue", "Hello.")["spurious_rate"] == 0
    drawn = "<module>A</module><instruction>draw: a red star</instruction>"
    assert scores(data, "text_to_image", drawn)["generated"] == 1
    unchanged = scores(data, "image_editing", "I will not.")
    assert unchanged["generated"] == 0
    assert unchanged["l1"] > 0


def test_figures_by_turn_and_by_group(tmp_path):
    def vqa(name, group, turns, answer):
        earlier = (user_message("Hi.", media=0), assistant_message("Hello.")) * (turns - 1)
        return Sample(
            id=name,
            task="vqa",
            messages=(*earlier, user_message("Colour?", media=0), assistant_message(answer)),
            targets=Targets(answers=(answer,)),
            group=group,
        )

    samples = [vqa("a", "drawn", 1, "red"), vqa("b", "drawn", 2, "blue"), vqa("c", "flat", 2, "red")]
    write_samples(samples, tmp_path)
    model = ScriptedGenerator(["red"])
    found = evaluate(TASKS["vqa"], read_items(tmp_path, "vqa"), lambda _: model, specialists=toys())
    assert found.figures["accuracy"].samples == 3
    assert found.scores["accuracy"] == pytest.approx(2 / 3)
    assert list(found.parts) == ["turn 1", "turn 2", "group drawn", "group flat"]
    values = [figures["accuracy"].value for figures in found.parts.values()]
    assert values == [1, 0.5, 0.5, 1]
    alone = evaluate(TASKS["vqa"], read_items(tmp_path, "vqa", limit=1), lambda _: model, specialists=toys())
    assert alone.parts == {}


def test_a_data_set_without_a_task_names_its_own(data):
    with pytest.raises(DataError, match="no samples for nothing, only for caption, dialogue, "):
        read_items(data, "nothing")


def test_what_is_not_found_is_a_miss(data):
    # the specialist sees no green star: the call fails, and the mask counts as empty
    missing = SEGMENT.replace("red circle", "green star")
    found = scores(data, "referring_segmentation", SEGMENT, SEGMENT, missing)
    assert found["giou"] == pytest.approx(2 / 3)
    assert found["execution_rate"] == pytest.approx(2 / 3)
    items, model = read_items(data, "text_to_image"), ScriptedGenerator(["I cannot draw."])
    embed = Embed(lambda pixels: np.ones(2), lambda text: np.ones(2))
    drawn = evaluate(TASKS["text_to_image"], items, lambda _: model, specialists=toys(), embed=embed)
    assert drawn.scores["clipsim"] == 0


def test_calls_may_name_regions_of_the_user(data):
    track = "<module>E</module><instruction>track: this</instruction><region>region_1</region>"
    found = scores(data, "video_segmentation", track)
    assert found["execution_rate"] == 1
    assert found["j_and_f"] > 0.5


def test_a_malformed_call_is_asked_again_and_counts(data):
    found = scores(data, "invocation", "<module>B</module>", SEGMENT)
    assert found["invocation_exact"] == 1
    assert found["parse_rate"] == 0


def test_several_at_a_time_give_what_one_gives(data, tmp_path):
    items = read_items(data, "referring_segmentation")

    def model(item):
        if item.sample.id == "seg-1":
            raise ValueError("out of luck")
        return ScriptedGenerator([SEGMENT if item.sample.id == "seg-0" else "No."])

    def run(workers):
        task, folder = TASKS["referring_segmentation"], tmp_path / str(workers)
        return evaluate(task, items, model, specialists=toys(), folder=folder, settings={}, workers=workers)

    assert run(3) == run(1)
    first, second = (next((tmp_path / name).iterdir()).read_bytes() for name in "13")
    assert first == second


def test_a_stopped_run_resumes(data, tmp_path):
    items = read_items(data, "referring_segmentation")
    asked = []

    def model(item):
        asked.append(item.sample.id)
        if item.sample.id == "seg-1" and len(asked) < 4:
            raise ValueError("out of luck")
        return ScriptedGenerator([SEGMENT])

    def run(**options):
        return evaluate(
            TASKS["referring_segmentation"],
            items,
            model,
            specialists=toys(),
            folder=tmp_path / "out",
            settings={"model": "x", **options},
        )

    first = run()
    assert first.failures == {"seg-1": "out of luck"}
    assert first.evaluated == 2
    (rows,) = (tmp_path / "out").iterdir()
    with rows.open("a") as file:
        file.write('["seg-')  # as a kill leaves it
    second = run()
    assert asked == ["seg-0", "seg-1", "seg-2", "seg-1"]
    assert (second.evaluated, second.resumed, second.failures) == (3, 2, {})
    assert run().resumed == 3
    assert run(seed=1).resumed == 0  # rows of other settings do not count
    assert run().resumed == 3
    asked.clear()
    items.pop(1)
    assert run(overwrite=True).resumed == 0
    assert asked == ["seg-0", "seg-2"]


def test_processes_share_the_samples_and_merge_their_rows(data, tmp_path):
    items = read_items(data, "referring_segmentation")
    asked = []

    def model(item):
        asked.append(item.sample.id)
        return ScriptedGenerator([SEGMENT])

    def run(processes):
        asked.clear()
        return evaluate(
            TASKS["referring_segmentation"],
            items,
            model,
            specialists=toys(),
            folder=tmp_path,
            settings={},
            processes=processes,
        )

    run(Processes(rank=1, world_size=2, connected=False))
    assert asked == ["seg-1"]
    run(Processes(rank=0, world_size=2, connected=False))
    assert asked == ["seg-0"]  # of the two that were left
    whole = run(Processes())
    assert (asked, whole.resumed, whole.evaluated) == (["seg-2"], 2, 3)


def test_a_bad_sample_is_skipped(data, tmp_path):
    samples = [sample for _, sample in read_samples(data) if sample.task == "vqa"]
    lost = samples[0].model_copy(update={"id": "lost", "media": (SampleMedia(path="lost.png"),)})
    write_samples([lost, *samples], tmp_path)
    Image.fromarray(scene()[0]).save(tmp_path / "0.png")
    model = ScriptedGenerator(["red"])
    found = evaluate(TASKS["vqa"], read_items(tmp_path, "vqa"), lambda _: model, specialists=toys())
    assert found.evaluated == 1
    assert "lost.png does not exist" in found.failures["lost"]
