# SPDX-License-Identifier: Apache-2.0
import json
from importlib.resources import files

import numpy as np
import pytest
import torch
from common_kernels.runtime.cli import run_app
from PIL import Image
from semanir import SemanIR, SemanIRConfig
from semanir.cli import app
from semanir.data import find_images
from semanir.evaluation import Protocol, evaluate, published
from semanir.evaluation.methods import make_test_image
from semanir.evaluation.run import compare
from skimage.data import chelsea

TINY = {"embed_dims": (8, 8), "num_heads": (1, 1), "depths": (1, 1, 1, 1), "window_size": 4, "k": 6}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "Set5"
    folder.mkdir()
    for number, top in enumerate((40, 120, 180)):
        Image.fromarray(chelsea()[top : top + 50, 100:161]).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "model"
    SemanIR(SemanIRConfig.preset("tiny", conv_blocks=(), **TINY)).save_pretrained(folder)
    return folder


def run(capfd, *arguments, code=0):
    capfd.readouterr()
    found = run_app(app, ["evaluate", *map(str, arguments), "--device", "cpu"])
    shown = capfd.readouterr()
    assert found == code, shown.out + shown.err
    return shown


class TestProtocol:
    @pytest.mark.parametrize(
        ("options", "setting", "border", "luma", "factor"),
        [
            ({"task": "sr", "scale": 3}, "x3", 3, True, 3),
            ({"task": "sr", "crop": 0, "luma": "no"}, "x4", 0, False, 4),
            ({"task": "denoise", "sigma": 15}, "sigma 15", 0, False, 1),
            ({"task": "jpeg", "quality": 40, "grey": True}, "quality 40, grey", 0, False, 1),
            ({"task": "weather", "luma": "yes"}, "", 0, True, 1),
        ],
    )
    def test_rules_of_the_tasks(self, options, setting, border, luma, factor):
        found = Protocol(**options)
        assert (found.setting, found.border, found.compares_luma, found.factor) == (
            setting,
            border,
            luma,
            factor,
        )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"sigma": -1}, "sigma"),
            ({"quality": 0}, "quality"),
            ({"crop": -1}, "crop"),
            ({"task": "sr", "grey": True}, "grey belongs"),
        ],
    )
    def test_wrong_rules_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            Protocol(**options)


class TestFigures:
    def test_results_are_clipped_and_rounded_first(self):
        clean = torch.full((3, 20, 20), 100 / 255)
        almost = clean + 0.4 / 255
        assert compare(almost, clean, Protocol())["psnr"] == 100
        over = torch.full((3, 20, 20), 1.7)
        assert compare(over, torch.ones(3, 20, 20), Protocol())["psnr"] == 100
        off = compare(clean + 1 / 255, clean, Protocol())
        assert off["psnr"] == pytest.approx(20 * np.log10(255), abs=1e-4)

    def test_luma_and_border(self):
        clean = torch.full((3, 30, 30), 100 / 255)
        wrong = clean.clone()
        wrong[:, :4] = 0
        protocol = Protocol(task="sr", scale=4)
        assert compare(wrong, clean, protocol)["psnr"] == 100
        blue = clean.clone()
        blue[2] += 10 / 255
        by_hand = 20 * np.log10(255 / (10 * 24.966 / 255))
        assert compare(blue, clean, protocol)["psnr"] == pytest.approx(by_hand, abs=1e-3)

    def test_other_sizes_are_refused(self):
        with pytest.raises(ValueError, match="as the clean image"):
            compare(torch.zeros(3, 12, 12), torch.zeros(3, 12, 13), Protocol())
        with pytest.raises(ValueError, match="nothing is left"):
            compare(torch.zeros(3, 8, 8), torch.zeros(3, 8, 8), Protocol(crop=4))

    def test_noise_is_that_of_kair(self, photographs):
        [first, *_] = find_images([photographs])
        degraded, clean = make_test_image(first, Protocol(sigma=25))
        np_clean = clean.permute(1, 2, 0).numpy()
        expected = np_clean + np.random.RandomState(0).normal(0, 25 / 255, np_clean.shape)
        assert np.abs(degraded.permute(1, 2, 0).numpy() - expected).max() < 1e-6

    def test_grey_jpeg_is_tested_on_matlabs_y(self, photographs):
        [first, *_] = find_images([photographs])
        clean = make_test_image(first, Protocol(task="jpeg", grey=True))[1]
        rgb = np.asarray(Image.open(first.clean)).astype(float)
        expected = np.rint(16 + rgb @ (65.481, 128.553, 24.966) / 255)
        assert np.abs(clean[0].numpy() * 255 - expected).max() < 1e-3

    @pytest.mark.parametrize("task", ["denoise", "jpeg", "sr", "demosaic"])
    def test_classical_methods_are_means_over_the_images(self, photographs, tmp_path, task):
        found = evaluate(find_images([photographs]), Protocol(task=task), folder=tmp_path, settings={})
        assert len(found.images) == 3
        assert set(found.means) == set(Protocol(task=task).baselines)
        for method, mean in found.means.items():
            values = [row[method]["psnr"] for row in found.images.values()]
            assert mean["psnr"] == pytest.approx(sum(values) / 3)
            assert 15 < mean["psnr"] < 45
            assert ("psnr_b" in mean) == (task == "jpeg")
            assert mean.get("psnr_b", 0) < mean["psnr"]
        if task == "denoise":
            means = found.means
            assert means["input"]["psnr"] == pytest.approx(20.3, abs=0.4)  # 20 log10(255 / 25), clipped
            assert min(means["nlm"]["psnr"], means["tv"]["psnr"]) > means["input"]["psnr"] + 4

    def test_a_stopped_run_resumes_and_bad_files_are_named(self, photographs, tmp_path):
        folder = tmp_path / "set"
        folder.mkdir()
        for file in photographs.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        pairs = find_images([folder])
        (folder / "1.png").write_bytes(b"\x89PNG broken")
        calls = []

        def network(degraded):
            calls.append(1)
            return degraded

        first = evaluate(pairs, Protocol(task="jpeg"), network=network, folder=tmp_path / "out", settings={})
        assert (len(first.images), list(first.failures)) == (2, [str(folder / "1.png")])
        (folder / "1.png").write_bytes((photographs / "1.png").read_bytes())
        again = evaluate(pairs, Protocol(task="jpeg"), network=network, folder=tmp_path / "out", settings={})
        assert len(calls) == 3
        assert (len(again.images), again.failures) == (3, {})
        assert all(row["network"] == row["input"] for row in again.images.values())
        # another photograph under the name of one that was measured
        (folder / "0.png").write_bytes((photographs / "1.png").read_bytes())
        pairs, protocol = find_images([folder]), Protocol(task="jpeg")
        changed = evaluate(pairs, protocol, network=network, folder=tmp_path / "out", settings={})
        assert len(calls) == 4
        assert changed.images[str(folder / "0.png")] == again.images[str(folder / "1.png")]


class TestPublished:
    def test_figures_are_found_by_set_and_setting(self):
        [small, base] = [each for each in published("sr", "x4", "set5") if each.method.startswith("SemanIR")]
        assert (small.psnr, small.ssim, base.psnr) == (33.02, 0.9082, 33.08)
        assert "2402.02634" in small.source
        assert [each.psnr for each in published("jpeg", "quality 10", "LIVE1")] == [25.69, 28.19, 28.31]
        assert published("denoise", "sigma 26", "CBSD68") == []

    def test_every_figure_belongs_to_a_protocol(self):
        rows = json.loads((files("semanir.evaluation") / "published.json").read_text("utf-8"))["rows"]
        settings = {Protocol(task="sr", scale=s).setting for s in (2, 3, 4)} | {""}
        for grey in (False, True):
            settings |= {Protocol(sigma=s, grey=grey).setting for s in (15, 25, 50)}
            settings |= {Protocol(task="jpeg", quality=q, grey=grey).setting for q in (10, 20, 30, 40)}
        assert {row["setting"] for row in rows} == settings
        assert all(20 < row["psnr"] < 45 for row in rows)


class TestCommand:
    def test_a_table_and_json(self, photographs, model, tmp_path, capfd):
        arguments = ["--task", "denoise", "--data", photographs, "--model", model, "-o", tmp_path / "out"]
        shown = run(capfd, *arguments)
        for word in ("nlm", "tv", "input", "Set5: denoise sigma 25, 3 images"):
            assert word in shown.out
        result = json.loads(run(capfd, *arguments, "--json").out)
        assert (result["num_images"], result["failed"], result["published"]) == (3, {}, [])
        assert set(result["means"]) == {"input", "nlm", "tv", "network"}
        [stored] = (tmp_path / "out").rglob("result.json")
        assert json.loads(stored.read_text())["means"] == result["means"]
        fewer = json.loads(run(capfd, *arguments, "--k", "2", "--json").out)
        assert fewer["means"]["network"] != result["means"]["network"]
        assert fewer["means"]["nlm"] == result["means"]["nlm"]

    def test_published_figures_stand_beside(self, photographs, tmp_path, capfd):
        shown = run(capfd, "--task", "sr", "--data", photographs, "--model", "none", "-o", tmp_path)
        assert "SwinIR" in shown.out
        assert "32.92" in shown.out
        assert "bicubic" in shown.out

    def test_pairs_are_evaluated(self, photographs, tmp_path, capfd):
        shown = run(
            capfd,
            *("--task", "deblur", "--data", photographs, "--degraded", photographs),
            *("--model", "none", "-o", tmp_path, "--json"),
        )
        assert json.loads(shown.out)["means"]["input"] == {"psnr": 100, "ssim": pytest.approx(1)}

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (("--task", "deblur"), "--degraded"),
            (("--task", "sr"), "enlarges 1 times"),
            (("--task", "denoise", "--sigma", "-1"), "sigma"),
            (("--task", "unknown"), "--task"),
            (("--task", "denoise", "--k", "0"), "k must be"),
        ],
    )
    def test_wrong_usage_is_one_sentence(self, photographs, model, tmp_path, capfd, arguments, named):
        shown = run(
            capfd, *arguments, "--data", photographs, "--model", model, "-o", tmp_path / "out", code=2
        )
        [line] = shown.err.strip().splitlines()
        assert named in line
        assert not (tmp_path / "out").exists()
