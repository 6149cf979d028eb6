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


def cc3m(root):
    for number in range(2):
        write_image(root / "00000" / f"00000000{number}.jpg")
        (root / "00000" / f"00000000{number}.txt").write_text(f"a red  picture {number}\n")
        dump(root / "00000" / f"00000000{number}.json", {"status": "success", "url": "http://x"})
    # a download that failed
    dump(root / "00000" / "000000002.json", {"status": "failed_to_download", "caption": "gone"})
    (root / "00000" / "000000002.txt").write_text("gone")


def webvid(root):
    frames = [Image.new("RGB", (16, 16), (at * 60, 9, 9)) for at in range(3)]
    place = root / "videos" / "000001_000050"
    place.mkdir(parents=True)
    # the suffix is that of the data set; the reader of videos looks at the content
    frames[0].save(place / "21.mp4", format="GIF", save_all=True, append_images=frames[1:])
    (root / "results_2M_val.csv").write_text(
        "videoid,contentUrl,duration,page_dir,name\n"
        '21,https://x/21.mp4,PT00H00M03S,000001_000050,"A red square, ""fading"""\n'
    )


def flickr30k(root):
    for folder in ("Sentences", "Annotations"):
        (root / folder).mkdir()
    write_image(root / "flickr30k-images" / "36.jpg")
    (root / "Sentences" / "36.txt").write_text(
        "[/EN#1/people A man] in [/EN#2/clothing a hat] near [/EN#3/scene a wall] .\nNothing here .\n"
    )
    (root / "Annotations" / "36.xml").write_text(
        "<annotation><filename>36.jpg</filename><size><width>20</width><height>10</height><depth>3</depth></size>"
        "<object><name>1</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>9</xmax><ymax>4</ymax></bndbox></object>"
        "<object><name>2</name><name>9</name>"
        "<bndbox><xmin>10</xmin><ymin>5</ymin><xmax>19</xmax><ymax>9</ymax></bndbox></object>"
        "<object><name>3</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"
    )
    (root / "test.txt").write_text("36\n")


def lasot(root):
    folder = root / "ball" / "ball-3"
    for at in range(4):
        write_image(folder / "img" / f"{at + 1:08d}.jpg", (20, 10))
    (folder / "groundtruth.txt").write_text("0,0,4,4\n2,0,4,4\n4,0,4,4\n6,0,4,4\n")
    (folder / "full_occlusion.txt").write_text("0,0,0,0\n")
    (folder / "out_of_view.txt").write_text("1,0,0,0\n")
    (folder / "nlp.txt").write_text("red ball rolling to the right\n")


def got10k(root):
    folder = root / "train" / "GOT-10k_Train_000001"
    for at in range(3):
        write_image(folder / f"{at + 1:08d}.jpg", (20, 10))
    (folder / "groundtruth.txt").write_text("0.0000,0.0000,4.0000,4.0000\n2,0,4,4\nnan,nan,nan,nan\n")
    (folder / "absence.label").write_text("0\n0\n1\n")
    (folder / "meta_info.ini").write_text(
        "[METAINFO]\nurl: https://x/?a=%20\nobject_class: beaver\nmotion_class: swimming\n"
    )


def mot(root):
    folder = root / "train" / "MOT16-02"
    for at in range(40):
        write_image(folder / "img1" / f"{at + 1:06d}.jpg", (20, 10))
    rows = [f"{at + 1},1,{at / 4},0,4,8,1,1,1" for at in range(40)]
    rows += ["1,2,0,0,4,4,0,1,1", "2,3,0,0,4,4,1,7,1"]  # not to be counted, and not a pedestrian
    (folder / "gt").mkdir()
    (folder / "gt" / "gt.txt").write_text("\n".join(rows) + "\n")


def gqa(root):
    write_image(root / "images" / "2354786.jpg")
    note = {"question": {"2": "11"}, "answer": {}, "fullAnswer": {"1": "11"}}
    item = {
        "imageId": "2354786",
        "question": "What colour is the ball?",
        "answer": "red",
        "annotations": note,
    }
    plain = {"imageId": "2354786", "question": "Is it day?", "answer": "yes", "annotations": {"answer": {}}}
    dump(root / "val_balanced_questions.json", {"05": item, "06": plain})
    thing = {"name": "ball", "x": 4, "y": 2, "w": 8, "h": 6}
    dump(root / "val_sceneGraphs.json", {"2354786": {"width": 20, "height": 10, "objects": {"11": thing}}})


WRITERS = {
    "captions": captions,
    "captions-generation": captions,
    "cc3m": cc3m,
    "cc3m-generation": cc3m,
    "davis": davis,
    "flickr30k": flickr30k,
    "got10k": got10k,
    "gqa": gqa,
    "lasot": lasot,
    "llava": llava,
    "magicbrush": magicbrush,
    "mot": mot,
    "refcoco": refcoco,
    "refcoco-box": refcoco,
    "refcoco-caption": refcoco,
    "release": release,
    "vidstg": vidstg,
    "vqa": vqa,
    "webvid": webvid,
    "webvid-generation": webvid,
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
