# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from PIL import Image
from vitron.data.converters import LAYOUTS, read_layout
from vitron.data.files import read_example, read_samples, write_samples
from vitron.errors import DataError


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_becomes_examples_and_survives_a_round_trip(layout, tmp_path, name):
    root, out = layout(name), tmp_path / "out"
    samples = list(read_layout(name, root))
    assert samples
    assert write_samples(samples, out, source=root) == len(samples)
    again = [sample for _, sample in read_samples(out)]
    assert again == samples
    for sample in again:
        example = read_example(sample, out)
        assert example.task == sample.task
        assert len(example.media) == len(sample.media)
        assert bool(sample.media) != name.endswith("-generation")
        assert set(example.masks) == set(example.mask_media)


def test_refcoco_has_masks_boxes_and_splits(layout):
    root = layout("refcoco")
    first, second, third = read_layout("refcoco", root)
    assert [each.id for each in (first, second, third)] == ["5-0", "5-1", "6-0"]
    assert first.split == "test"
    assert first.targets.boxes[0].corners == (0.2, 0.2, 0.6, 0.8)
    polygon, runs = (read_example(each, root).masks[0][0] for each in (first, third))
    assert polygon[2:8, 4:12].all()
    assert polygon.sum() == 48
    assert runs[:5, 4].all()
    assert runs.sum() == 5
    assert first.messages[1].calls[0].instruction[0].text == "red box"
    assert len(list(read_layout("refcoco", root, split="testA"))) == 2
    caption = next(read_layout("refcoco-caption", root))
    assert caption.targets.captions == ("red box", "it")
    assert caption.messages[0].content[1].type == "region"


def test_davis_follows_each_object_from_where_it_appears(layout):
    root = layout("davis")
    first, second = read_layout("davis", root)
    assert (first.id, second.id) == ("ball-1", "ball-2")
    example = read_example(second, root)
    assert example.regions[0].frame == 1
    assert example.masks[0].shape == (3, 8, 12)
    assert [int(mask.sum()) for mask in example.masks[0]] == [0, 4, 4]
    assert np.array_equal(example.regions[0].mask, example.masks[0][1])


def test_the_release_has_calls_and_a_box(layout):
    (sample,) = read_layout("release", layout("release"))
    assert sample.task == "invocation"
    assert sample.messages[1].text == "On it."
    assert sample.messages[1].calls[0].module == "image_segmentation"
    # beyond the edge it is cut off
    assert sample.regions[0].region.corners == (0.25, 0.0, 1.0, 0.5)
    assert [part.type for part in sample.messages[0].content] == ["media", "region", "text"]


def dialogue(tmp_path, *values, first="human"):
    """A dialogue of the release whose turns take turns, with a box on its image."""
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    speakers = ["human", "gpt"] if first == "human" else ["gpt", "human"]
    turns = [{"from": speakers[at % 2], "value": value} for at, value in enumerate(values)]
    item = {"idx": 1, "image": "a.png", "bbox": [5, 0, 25, 5], "conversations": turns}
    (tmp_path / "x.json").write_text(json.dumps([item]))
    (sample,) = read_layout("release", tmp_path)
    return sample


def test_a_box_without_a_tag_is_not_shown(tmp_path):
    sample = dialogue(tmp_path, "<image>\nMark the ball.", "Ok.")
    assert sample.regions == ()
    assert [part.type for part in sample.messages[0].content] == ["media", "text"]


def test_text_keeps_its_lines_and_gives_the_one_behind_media_away(tmp_path):
    sample = dialogue(tmp_path, "<image>\nMark this:\n<objs>\nand\nno more", "Ok.")
    parts = sample.messages[0].content
    assert [part.type for part in parts] == ["media", "text", "region", "text"]
    assert [part.text for part in parts if part.type == "text"] == ["Mark this:", "and\nno more"]


def test_a_first_turn_of_the_assistant_is_skipped(tmp_path):
    sample = dialogue(tmp_path, "Welcome!", "<image>\nWhat is it?", "A ball.", first="gpt")
    assert [message.role for message in sample.messages] == ["user", "assistant"]


@pytest.mark.parametrize(("values", "kept"), [(["x", "y"] * 40, 64), (["x" * 9000, "y"] * 5, 6)])
def test_long_dialogues_are_cut_behind_an_answer(values, kept, tmp_path):
    sample = dialogue(tmp_path, *values)
    assert len(sample.messages) == kept
    assert sample.messages[-1].role == "assistant"


def test_a_dialogue_without_an_answer_in_the_limits_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no answer within 32000 characters"):
        dialogue(tmp_path, "x" * 32_001, "y")


def test_tags_in_plain_conversations_stay_text(layout):
    (sample,) = read_layout("llava", layout("llava"))
    assert sample.messages[1].text == "Red. A tag: <module>B</module>"
    assert sample.messages[1].calls == ()
    assert [message.role for message in sample.messages] == ["user", "assistant"] * 2


def test_magicbrush_vqa_and_vidstg_keep_their_truth(layout):
    (edit,) = read_layout("magicbrush", layout("magicbrush"))
    assert edit.targets.image == "images/8/8-output1.png"
    assert (edit.targets.source_caption, edit.targets.captions) == ("black", ("red",))
    (question,) = read_layout("vqa", layout("vqa"))
    assert len(question.targets.answers) == 10
    assert question.messages[1].text == "red"
    (video,) = read_layout("vidstg", layout("vidstg"))
    assert video.targets.span == (1, 2)
    assert [box.frame for box in video.targets.boxes] == [1, 2]


def test_captions_are_said_or_called_for(layout):
    said = list(read_layout("cc3m", layout("cc3m")))
    assert [each.targets.captions for each in said] == [("a red picture 0",), ("a red picture 1",)]
    assert [each.id for each in said] == ["00000/000000000", "00000/000000001"]
    (video,) = read_layout("webvid", layout("webvid"))
    assert video.media[0].path == "videos/000001_000050/21.mp4"
    assert video.messages[1].text == 'A red square, "fading"'
    made = next(read_layout("webvid-generation", layout("webvid-generation")))
    assert made.messages[1].calls[0].module == made.task == "text_to_video"
    assert made.messages[1].calls[0].instruction[0].text == video.messages[1].text


def test_a_table_of_captions_is_read_with_or_without_a_header(tmp_path):
    for number, head in enumerate(("", "caption\tpath\n")):
        file = tmp_path / f"{number}.tsv"
        file.write_text(f'{head}a "red" ball\tx/1.jpg\nblue\tx/2.jpg\n')
        samples = list(read_layout("cc3m", file))
        assert [each.media[0].path for each in samples] == ["x/1.jpg", "x/2.jpg"]
        assert samples[0].messages[1].text == 'a "red" ball'
    for text, message in (
        ("a ball\n", "must be a caption, a tab and a path"),
        ("a ball\thttp://x/1.jpg\n", "download the images first"),
        (" \tx.jpg\n", "has no caption"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            list(read_layout("cc3m", file))
    file = tmp_path / "x.json"
    file.write_text(json.dumps([{"video": "a.mp4", "caption": "b"}]))
    assert next(read_layout("webvid", file)).media[0].type == "video"


def test_phrases_have_the_boxes_of_their_entities(layout):
    (sample,) = read_layout("flickr30k", layout("flickr30k"), split="test")
    assert sample.split == "test"
    assert sample.messages[0].text.endswith("A man in a hat near a wall .")
    # the corners of a box are pixels, both included
    assert [box.corners for box in sample.targets.boxes] == [(0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)]
    answer = sample.messages[1].text
    assert answer.startswith("A man [")
    assert "; a hat [" in answer
    assert "wall" not in answer


def test_tracks_have_spans_and_boxes_of_the_frames_that_are_shown(layout):
    (ball,) = read_layout("lasot", layout("lasot"))
    assert ball.messages[0].text.endswith("red ball rolling to the right")
    assert ball.targets.span == (1, 3)  # out of view on the first
    assert ball.targets.boxes[0].corners == (0.1, 0, 0.3, 0.4)
    (beaver,) = read_layout("got10k", layout("got10k"))
    assert beaver.messages[0].text.endswith("the beaver")
    assert beaver.targets.span == (0, 1)
    root = layout("mot")
    (walker,) = read_layout("mot", root)
    assert walker.task == "video_tracking"
    assert len(walker.media[0].paths) == 32  # of 40, first and last included
    assert walker.media[0].paths[-1].endswith("000040.jpg")
    assert walker.targets.span == (0, 31)
    assert walker.targets.boxes[-1].x0 == pytest.approx(39 / 4 / 20)
    assert read_example(walker, root).regions[0].frame == 0


def test_an_answer_comes_behind_the_box_that_grounds_it(layout, tmp_path):
    (sample,) = read_layout("gqa", layout("gqa"))  # the second question names nothing
    assert sample.targets.boxes[0].corners == (0.2, 0.2, 0.6, 0.8)
    assert sample.messages[1].text.endswith("] red")
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    file = tmp_path / "own.json"
    file.write_text(json.dumps([{"image": "a.png", "question": "q", "answer": "a", "bbox": [0, 0, 5, 5]}]))
    assert next(read_layout("gqa", file)).targets.boxes[0].corners == (0, 0, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        ("webvid", "results_2M_val.csv", "videoid", "id", "has no column 'videoid'"),
        ("webvid", "results_2M_val.csv", "21,https", "21,,https", "has 6 columns, not 5"),
        ("flickr30k", "test.txt", "36", "../36", "is not an id"),
        ("flickr30k", "test.txt", "36", "37", "holds no 37.txt"),
        ("flickr30k", "Annotations/36.xml", "<width>20", "<width>x", "not an annotation"),
        ("flickr30k", "Annotations/36.xml", "</annotation>", "", "not an annotation"),
        ("flickr30k", "Annotations/36.xml", "<annotation>", "<!DOCTYPE a><annotation>", "defines entities"),
        ("lasot", "ball/ball-3/groundtruth.txt", "0,0,4,4", "0,0,4", "line 1 has 3 numbers, not 4"),
        ("lasot", "ball/ball-3/groundtruth.txt", "2,0", "two,0", "line 2 must be numbers"),
        ("got10k", "train/GOT-10k_Train_000001/meta_info.ini", "[METAINFO]", "", "not a file of settings"),
        ("mot", "train/MOT16-02/gt/gt.txt", "40,1", "41,1", "names frame 41 of 40"),
        ("gqa", "val_balanced_questions.json", '"answer": "red"', '"answer": 3', "'answer' is a int"),
    ],
)
def test_text_that_does_not_fit_is_one_sentence(layout, name, file, old, new, message):
    root = layout(name)
    text = (root / file).read_text("utf-8")
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        list(read_layout(name, root))


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("refcoco", "refs.json", lambda d: d[0].update(ann_id=99), "item 0 refers to an annotation or image"),
        (
            "refcoco",
            "instances.json",
            lambda d: d["annotations"][0].update(segmentation=3),
            "no mask that can",
        ),
        (
            "refcoco",
            "instances.json",
            lambda d: d["annotations"][1]["segmentation"].update(size=[1, 1]),
            "not fit",
        ),
        (
            "release",
            "invocations.json",
            lambda d: d[0].update(bbox=[9, 9, 1, 1]),
            "right edge beyond the left",
        ),
        ("release", "invocations.json", lambda d: d[0].update(image="../../etc/passwd"), "stay inside"),
        ("release", "invocations.json", lambda d: d[0].update(image=None), "a box but no image or video"),
        ("llava", "chat.json", lambda d: d[0]["conversations"][0].update({"from": "cat"}), "from 'cat'"),
        ("llava", "chat.json", lambda d: d[0].pop("conversations"), "item 0 has no 'conversations'"),
        ("llava", "chat.json", lambda d: d[0].update(image=5), "'image' must be a path or a list"),
        ("vqa", "v2_annotations.json", lambda d: d["annotations"].clear(), "question 1 has no answers"),
        ("vqa", "v2_questions.json", lambda d: d["questions"][0].update(image_id=4), "holds no image 4"),
        ("magicbrush", "edit_turns.json", lambda d: d[0].update(output="lost.png"), "holds no lost.png"),
        ("vidstg", "clips.json", lambda d: d[0].update(span=[3, 1]), "first and the last frame"),
        ("vidstg", "clips.json", lambda d: d[0].update(boxes=[[1, 2]]), "four numbers"),
    ],
)
def test_what_does_not_fit_is_one_sentence(layout, name, file, change, message):
    root = layout(name)
    value = json.loads((root / file).read_text("utf-8"))
    change(value)
    (root / file).write_text(json.dumps(value), "utf-8")
    with pytest.raises(DataError, match=message):
        list(read_layout(name, root))


def test_files_that_are_none_are_refused(layout, tmp_path):
    with pytest.raises(ValueError, match="layout must be one of captions"):
        read_layout("imagenet", tmp_path)
    with pytest.raises(ValueError, match="llava has no split"):
        read_layout("llava", tmp_path, split="x")
    with pytest.raises(DataError, match=r"holds none of \*\.json"):
        list(read_layout("llava", tmp_path))
    pickled = tmp_path / "refs.p"
    pickled.write_bytes(b"cos\nsystem\n")
    with pytest.raises(DataError, match="is a pickle"):
        list(read_layout("llava", pickled))
    broken = tmp_path / "x.json"
    broken.write_text("[" * 200_000)
    with pytest.raises(DataError, match="is not JSON"):
        list(read_layout("llava", broken))
    with pytest.raises(DataError, match="must hold JPEGImages"):
        list(read_layout("davis", tmp_path))
