# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image

# what a label map of each data set holds, as stored
STORED = {
    "voc21": [0, 1, 20, 255],
    "context60": [0, 1, 59],
    "coco-object": [0, 1, 80],
    "coco-stuff": [0, 1, 170, 255],
    "cityscapes": [0, 1, 18, 255],
    "voc20": [0, 1, 20, 255],
    "context59": [0, 1, 59],
    "ade20k": [0, 1, 150],
}
FILES = {
    "voc21": ("JPEGImages/{}.jpg", "SegmentationClass/{}.png", "ImageSets/Segmentation/val.txt"),
    "context60": (
        "JPEGImages/{}.jpg",
        "SegmentationClassContext/{}.png",
        "ImageSets/SegmentationContext/val.txt",
    ),
    "coco-object": ("images/val2017/{}.jpg", "annotations/val2017/{}_instanceTrainIds.png", None),
    "coco-stuff": ("images/val2017/{}.jpg", "annotations/val2017/{}_labelTrainIds.png", None),
    "cityscapes": (
        "leftImg8bit/val/{}_leftImg8bit.png",
        "gtFine/val/{}_gtFine_labelTrainIds.png",
        None,
    ),
    "ade20k": ("images/validation/{}.jpg", "annotations/validation/{}.png", None),
}
FILES["voc20"], FILES["context59"] = FILES["voc21"], FILES["context60"]


@pytest.fixture
def make_tree():
    """Write a data set of a few small images in its own layout; returns their names and label arrays."""

    def make(name, root, number=3, *, size=(6, 5), seed=0, suffix=None):
        random = np.random.default_rng(seed)
        images, labels, listing = FILES[name]
        labels = suffix or labels
        city = {"cityscapes": "ulm/ulm_{:06d}"}.get(name, "{:06d}")
        made = {}
        for index in range(number):
            sample = city.format(index)
            photo = random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            stored = random.choice(np.array(STORED[name], dtype=np.uint8), (size[1], size[0]))
            for path, image in ((images, Image.fromarray(photo)), (labels, Image.fromarray(stored))):
                place = root / path.format(sample)
                place.parent.mkdir(parents=True, exist_ok=True)
                image.save(place)
            made[sample] = stored
        if listing:
            (root / listing).parent.mkdir(parents=True, exist_ok=True)
            (root / listing).write_text("\n".join(made) + "\n")
        return made

    return make
