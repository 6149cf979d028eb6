# SPDX-License-Identifier: Apache-2.0
"""Which patches a pixel attends to, as figures and by the command."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from common_kernels.runtime.cli import run_app
from PIL import Image
from semanir import SemanIR, SemanIRConfig
from semanir.cli import app
from semanir.explanation import explain
from semanir.explanation_pictures import draw_listings, listings_page


def network(**changes):
    torch.manual_seed(0)
    defaults = {
        "embed_dims": (8, 8), "num_heads": (1, 1), "depths": (1, 2, 1, 1), "conv_blocks": (),
        "window_size": 4, "k": 6,
    }  # fmt: skip
    return SemanIR(SemanIRConfig.preset("tiny", **defaults | changes)).eval()


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (45, 70, 3), dtype=np.uint8))


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def test_the_listed_patches_are_those_of_the_dictionaries(image):
    model = network()
    kept = []
    build = type(model.stages[0]).build_dictionary

    def spy(stage, x, shift, k):
        kept.append((shift, build(stage, x, shift, k)))
        return kept[-1][1]

    for stage in model.stages:
        stage.build_dictionary = spy.__get__(stage)
    model(tensor(image)[None], k=6)
    used = list(kept)
    at = (37, 21)
    listings = explain(model, tensor(image), at)
    assert [(e.stage, e.token_size, e.shift) for e in listings] == [
        (1, 2, 0),
        (2, 4, 2),
        (3, 2, 0),
        (4, 2, 2),
    ]
    for listing, (shift, dictionary) in zip(listings, used, strict=True):
        side = int(listing.token_size)
        columns, rows = 80 // side, 48 // side  # of the image padded to multiples of 16
        x, y = (at[0] // side - shift) % columns, (at[1] // side - shift) % rows
        row = dictionary.index[y // 4 * (columns // 4) + x // 4, y % 4 * 4 + x % 4].tolist()
        expected = {
            (
                ((x // 4 * 4 + index % 4 + shift) % columns) * side,
                ((y // 4 * 4 + index // 4 + shift) % rows) * side,
            )
            for index in row
            if index >= 0
        }
        assert {tuple(key) for key in listing.listed(6)} == {
            each for each in expected if each[0] < 70 and each[1] < 45
        }
        assert listing.query in {tuple(key) for key in listing.listed(1)}


def test_sets_grow_with_the_keys(image):
    for listing in explain(network(), tensor(image), (69, 44), ks=[3]):
        sets = [{tuple(key) for key in listing.listed(k)} for k in listing.ks]
        assert listing.ks == (1, 2, 3, 4, 6, 8, 16)
        assert all(small <= large for small, large in pairwise(sets))
        assert len(sets[-1]) == len(listing.keys)
        with pytest.raises(ValueError, match="k must be one of"):
            listing.listed(5)


def test_layers_of_two_kinds_of_windows_give_two_listings(image):
    listings = explain(network(shift="layer"), tensor(image), (5, 5))
    assert [(e.stage, e.shift) for e in listings] == [(1, 0), (2, 0), (2, 2), (3, 0), (4, 0)]


def test_a_large_image_is_seen_around_the_pixel():
    model = network()
    large = torch.rand(3, 530, 1100, generator=torch.Generator().manual_seed(0))
    seen = []
    handle = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    [first, *_] = explain(model, large, (1099, 529))
    handle.remove()
    assert max(seen[0][-2:]) <= 528
    assert first.query == (1098, 528)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"at": (70, 0)}, "70 x 45 pixels, got 70,0"), ({"at": (0, 0), "ks": [0]}, "k must be at least 1")],
)
def test_wrong_options_are_refused(image, options, message):
    with pytest.raises(ValueError, match=message):
        explain(network(), tensor(image), **options)


def test_figures(image):
    listings = explain(network(), tensor(image), (37, 21))
    drawn = draw_listings(image, listings, [2, 6])
    assert drawn.width > 3 * 260
    fewer = draw_listings(image, listings, [2, 2])
    assert fewer.size == drawn.size
    assert fewer.tobytes() != drawn.tobytes()
    page = listings_page(image, listings, title="a <b>")
    assert "a &lt;b&gt;" in page
    data = json.loads(page.split("const data = ")[1].split(";\n")[0])
    assert [view["name"] for view in data["views"]][1] == "2: patches of 4 px, rolled windows"
    assert len(data["views"][0]["keys"]) == len(listings[0].keys)


class TestCommand:
    @pytest.fixture
    def here(self, tmp_path, image, monkeypatch):
        monkeypatch.chdir(tmp_path)
        image.save("a.png")
        network().save_pretrained("model")
        return tmp_path

    def run(self, capfd, *words):
        output = [] if "-o" in words else ["-o", "b.png"]
        code = run_app(app, ["explain", "a.png", *output, "--model", "model", "--device", "cpu", *words])
        return code, capfd.readouterr()

    def test_writes_an_image_and_a_page(self, here, capfd):
        code, shown = self.run(capfd, "--at", "37,21", "--json")
        assert code == 0, shown.err
        found = json.loads(shown.out)
        assert found["k"] == [1, 3, 6]
        assert [each["stage"] for each in found["stages"]] == [1, 2, 3, 4]
        with Image.open("b.png") as drawn:
            assert drawn.width > 4 * 260
        assert "<canvas" in (here / "b.html").read_text()
        code, shown = self.run(capfd, "--at", "37,21")
        assert code == 2
        assert "--overwrite" in shown.err

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--at", "37"], "--at must be X,Y"),
            (["--at", "a,b"], "--at must be whole numbers such as X,Y"),
            (["--at", "-1,9"], "must lie in the image of 70 x 45"),
            (["--at", "3,99"], "must lie in the image of 70 x 45"),
            (["--at", "3,3", "--k", "17"], "--k must be at most 16"),
            (["--at", "3,3", "--k", "x"], "--k must be whole numbers"),
            (["--at", "3,3", "-o", "b.pdf"], "must be a .png"),
        ],
    )
    def test_wrong_usage_is_one_sentence(self, here, capfd, words, message):
        code, shown = self.run(capfd, *words)
        assert code == 2
        [line] = [each for each in shown.err.splitlines() if each.startswith("semanir: ")]
        assert message in line
        assert not (here / "b.png").exists()
