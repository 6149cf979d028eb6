# SPDX-License-Identifier: Apache-2.0
"""Small data sets in public layouts, written where a test can read them."""

import json

import numpy as np
import pytest
from PIL import Image


def write_image(path, size=(20, 10), colour=(200, 30, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")


def refcoco(root):
    write_image(root / "images" / "COCO_train2014_000000000007.png")
    counts = [40, 5, 155]  # COCO's order: columns of ten
    dump(
        root / "instances.json",
        {
            "images": [{"id": 7, "file_name": "x.jpg", "width": 20, "height": 10}],
            "annotations": [
                {"id": 1, "bbox": [4, 2, 8, 6], "segmentation": [[4, 2, 12, 2, 12, 8, 4, 8]]},
                {"id": 2, "bbox": [4, 0, 1, 5], "segmentation": {"size": [10, 20], "counts": counts}},
            ],
        },
    )
    refs = [
        {
            "ref_id": 5,
            "ann_id": 1,
            "image_id": 7,
            "split": "testA",
            "sentences": [{"sent": "red box"}, {"raw": "it"}],
        },
        {"ref_id": 6, "ann_id": 2, "image_id": 7, "split": "val", "sentences": [{"sent": "line"}]},
    ]
    dump(root / "refs.json", refs)


def davis(root):
    for at in range(3):
        write_image(root / "JPEGImages" / "480p" / "ball" / f"{at:05d}.png", (12, 8), (at * 50, 9, 9))
        labels = np.zeros((8, 12), dtype=np.uint8)
        labels[1:4, 1 + at : 4 + at] = 1
        if at:
            labels[5:7, 0:2] = 2
        place = root / "Annotations" / "480p" / "ball" / f"{at:05d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(place)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("ball\n")


def magicbrush(root):
    for name, colour in (("8-input.png", (9, 9, 9)), ("8-output1.png", (200, 9, 9))):
        write_image(root / "images" / "8" / name, (16, 16), colour)
    dump(
        root / "edit_turns.json",
        [{"input": "8-input.png", "output": "8-output1.png", "instruction": "make it red"}],
    )
    dump(root / "global_descriptions.json", {"8": {"8-input.png": "black", "8-output1.png": "red"}})


def vqa(root):
    write_image(root / "images" / "COCO_val2014_000000000009.png")
    dump(
        root / "v2_questions.json",
        {"questions": [{"question_id": 1, "image_id": 9, "question": "What colour?"}]},
    )
    answers = [{"answer": "red"}] * 6 + [{"answer": "dark red"}] * 4
    dump(root / "v2_annotations.json", {"annotations": [{"question_id": 1, "answers": answers}]})


def captions(root):
    write_image(root / "images" / "9.png")
    notes = [{"image_id": 9, "caption": "a red picture"}, {"image_id": 9, "caption": "all red"}]
    dump(root / "captions_val.json", {"images": [{"id": 9}], "annotations": notes})


def vidstg(root):
    for at in range(4):
        write_image(root / "clips" / "a" / f"{at}.png", (10, 10))
    item = {
        "video": "clips/a",
        "caption": "the ball",
        "width": 10,
        "height": 10,
        "span": [1, 2],
        "boxes": [[0, 0, 5, 5], [1, 0, 5, 5]],
    }
    dump(root / "clips.json", [item])


def llava(root):
    write_image(root / "a.png")
    turns = [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "Red. A tag: <module>B</module>"},
        {"from": "human", "value": "Sure?"},
        {"from": "gpt", "value": "Yes."},
    ]
    dump(root / "chat.json", [{"id": "x", "image": "a.png", "conversations": turns}])


def release(root):
    write_image(root / "a.png")
    value = "On it. <module>B</module><instruction>segmentation: the ball</instruction>"
    turns = [{"from": "human", "value": "<image>\n<objs> Mark this."}, {"from": "gpt", "value": value}]
    dump(
        root / "invocations.json",
        [{"idx": 3, "image": "a.png", "bbox": [5, 0, 25, 5], "conversations": turns}],
    )


WRITERS = {
    "captions": captions,
    "davis": davis,
    "llava": llava,
    "magicbrush": magicbrush,
    "refcoco": refcoco,
    "refcoco-box": refcoco,
    "refcoco-caption": refcoco,
    "release": release,
    "vidstg": vidstg,
    "vqa": vqa,
}


@pytest.fixture
def layout(tmp_path):
    """Write a layout and return its folder."""

    def make(name):
        root = tmp_path / name
        root.mkdir()
        WRITERS[name](root)
        return root

    return make
