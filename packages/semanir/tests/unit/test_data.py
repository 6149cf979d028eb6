# SPDX-License-Identifier: Apache-2.0
import logging

import numpy as np
import pytest
import torch
from common_kernels.runtime.images import ImageFile, write_image
from PIL import Image
from semanir.data import CropOptions, Crops, PairedFolders, WholeImages, find_images, find_pairs
from semanir.degradations import JPEG, BayerMosaic, BicubicDownscale, Chain, GaussianNoise


def save(path, height=24, width=30, channels=3, value=None):
    """Write an image whose pixels differ, or are all one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(map(ord, path.name)))
    shape = (height, width, channels) if channels > 1 else (height, width)
    pixels = rng.integers(0, 256, shape, dtype=np.uint8) if value is None else np.full(shape, value, np.uint8)
    Image.fromarray(pixels).save(path)
    return path


class TestFolders:
    def test_images_are_found_at_any_depth_and_unusable_ones_are_named(self, tmp_path, caplog):
        good = [save(tmp_path / name) for name in ("a.png", "b/c.png", "b/d/e.jpg")]
        save(tmp_path / "small.png", 8, 8)
        save(tmp_path / ".hidden.png")
        (tmp_path / "text.png").write_text("no image")
        (tmp_path / "notes.txt").write_text("no image")
        with caplog.at_level(logging.WARNING):
            found = find_images([tmp_path], least=16)
        assert sorted(pair.clean for pair in found) == sorted(good)
        [message] = caplog.messages
        assert message.startswith("2 file(s) left out: ")
        assert "small.png is 8 x 8" in message
        assert "text.png" in message

    @pytest.mark.parametrize("layout", ["gopro", "div2k", "raindrop", "outdoor"])
    def test_the_layouts_of_public_sets_are_paired(self, tmp_path, layout):
        scale, source = 1, None
        if layout == "gopro":
            for clip in ("GOPR1", "GOPR2"):
                for kind in ("blur", "sharp"):
                    save(tmp_path / "train" / clip / kind / "0001.png")
            source = PairedFolders(degraded=f"{tmp_path}/train/*/blur", clean=f"{tmp_path}/train/*/sharp")
            expected = {(f"{clip}/blur/0001.png", f"{clip}/sharp/0001.png") for clip in ("GOPR1", "GOPR2")}
        elif layout == "div2k":
            scale = 2
            save(tmp_path / "lr" / "0801x2.png", 12, 15)
            save(tmp_path / "hr" / "0801.png")
            source = PairedFolders(degraded=f"{tmp_path}/lr", clean=f"{tmp_path}/hr", degraded_suffix="x2")
            expected = {("lr/0801x2.png", "hr/0801.png")}
        elif layout == "raindrop":
            save(tmp_path / "data" / "7_rain.png")
            save(tmp_path / "gt" / "7_clean.jpg")
            source = PairedFolders(
                degraded=f"{tmp_path}/data",
                clean=f"{tmp_path}/gt",
                degraded_suffix="_rain",
                clean_suffix="_clean",
            )
            expected = {("data/7_rain.png", "gt/7_clean.jpg")}
        else:
            for name in ("im_1_s80_a04.png", "im_1_s90_a05.png"):
                save(tmp_path / "in" / name)
            save(tmp_path / "gt" / "im_1.png")
            source = PairedFolders(
                degraded=f"{tmp_path}/in", clean=f"{tmp_path}/gt", degraded_suffix=r"_s\d+_a\d+"
            )
            expected = {("in/im_1_s80_a04.png", "gt/im_1.png"), ("in/im_1_s90_a05.png", "gt/im_1.png")}
        found = {(str(each.degraded), str(each.clean)) for each in find_pairs([source], scale=scale)}
        root = tmp_path / "train" if layout == "gopro" else tmp_path
        assert found == {(str(root / a), str(root / b)) for a, b in expected}

    def test_what_does_not_match_is_named_in_one_sentence(self, tmp_path, caplog):
        for name in ("ok.png", "lonely.png", "other.png", "tiny.png", "broken.png"):
            save(tmp_path / "in" / name)
        for name in ("ok.png", "unused.png", "tiny.png", "broken.png"):
            save(tmp_path / "gt" / name)
        save(tmp_path / "in" / "other.png", 10, 10)
        save(tmp_path / "gt" / "other.png", 12, 10)
        (tmp_path / "gt" / "broken.png").write_bytes(b"\x89PNG no")
        source = PairedFolders(degraded=f"{tmp_path}/in", clean=f"{tmp_path}/gt")
        with caplog.at_level(logging.WARNING):
            found = find_pairs([source], least=11)
        assert sorted(each.clean.name for each in found) == ["ok.png", "tiny.png"]
        [message] = caplog.messages
        assert message.startswith("4 file(s) do not match and are left out: ")
        assert f"{tmp_path}/in/lonely.png has no clean image" in message
        assert f"{tmp_path}/gt/unused.png has no degraded image" in message
        assert f"gt/other.png (10 x 12) is not as large as {tmp_path}/in/other.png (10 x 10)" in message
        assert "gt/broken.png" in message

    def test_many_are_counted(self, tmp_path, caplog):
        save(tmp_path / "a.png")
        for number in range(9):
            (tmp_path / f"{number}.png").write_text("no image")
        find_images([tmp_path])
        assert caplog.messages[0].endswith("and 4 more")

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda p: find_images([p / "missing"]), "missing is no folder"),
            (lambda p: find_images([p / "empty"]), "no usable image"),
            (
                lambda p: find_pairs([PairedFolders(degraded=f"{p}/in", clean=f"{p}/empty")]),
                "no pair matches",
            ),
            (
                lambda p: find_pairs([PairedFolders(degraded=f"{p}/in", clean=f"{p}/in", clean_suffix="(")]),
                "no regular expression",
            ),
            (lambda p: find_pairs([PairedFolders(degraded=f"{p}/in", clean=f"{p}/twice")]), "one name"),
        ],
    )
    def test_faults_are_one_sentence(self, tmp_path, make, message):
        (tmp_path / "empty").mkdir()
        save(tmp_path / "in" / "a.png")
        save(tmp_path / "twice" / "a.png")
        save(tmp_path / "twice" / "a.jpg")
        with pytest.raises(ValueError, match=message) as caught:
            make(tmp_path)
        assert "\n" not in str(caught.value)


class TestCrops:
    @pytest.fixture
    def three(self, tmp_path):
        for number in range(3):
            save(tmp_path / f"{number}.png")
        return find_images([tmp_path])

    def test_a_number_decides_the_sample(self, three):
        options = CropOptions(patch_size=8, seed=5)
        one, other = (Crops(three, GaussianNoise(sigma_max=50), options) for _ in range(2))
        backwards = [other[number] for number in reversed(range(12))][::-1]
        for number, (degraded, clean) in enumerate(backwards):
            again = one[number]
            assert torch.equal(again[0], degraded)
            assert torch.equal(again[1], clean)
        assert degraded.shape == clean.shape == (3, 8, 8)
        different = Crops(three, GaussianNoise(), CropOptions(patch_size=8, seed=6))
        assert not torch.equal(different[0][1], one[0][1])

    def test_an_epoch_holds_every_image_once_in_an_order_of_its_own(self, tmp_path):
        for number in range(8):
            save(tmp_path / f"{number}.png", 12, 12, value=number * 20)
        crops = Crops(find_images([tmp_path]), GaussianNoise(), CropOptions(patch_size=4))
        epochs = [
            [round(crops[n][1].mean().item() * 255 / 20) for n in range(e * 8, e * 8 + 8)] for e in (0, 1)
        ]
        assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(8))
        assert epochs[0] != epochs[1]

    def test_places_and_flips_cover_the_image(self, tmp_path):
        save(tmp_path / "a.png", 6, 6, channels=1)
        crops = Crops(find_images([tmp_path]), GaussianNoise(sigma=0), CropOptions(patch_size=5, channels=1))
        seen = {tuple(crops[number][1].flatten().tolist()) for number in range(400)}
        assert len(seen) == 4 * 8

    @pytest.mark.parametrize("scale", [1, 2, 3])
    def test_pairs_are_cut_and_turned_together(self, tmp_path, scale):
        save(tmp_path / "in" / "a.png", 20, 22)
        large = np.asarray(Image.open(tmp_path / "in" / "a.png")).repeat(scale, 0).repeat(scale, 1)
        (tmp_path / "gt").mkdir()
        Image.fromarray(large).save(tmp_path / "gt" / "a.png")
        found = find_pairs([PairedFolders(degraded=f"{tmp_path}/in", clean=f"{tmp_path}/gt")], scale=scale)
        crops = Crops(found, None, CropOptions(patch_size=7, scale=scale))
        for number in range(10):
            degraded, clean = crops[number]
            assert torch.equal(clean, degraded.repeat_interleave(scale, 1).repeat_interleave(scale, 2))

    def test_a_crop_is_degraded_as_a_part_of_its_image(self, tmp_path):
        """Inside, the degraded crop equals the crop of the degraded image, for what has no chance in it."""
        save(tmp_path / "a.png", 96, 96)
        whole = WholeImages(find_images([tmp_path]), BicubicDownscale(scale=2), CropOptions(scale=2))[0][0]
        crops = Crops(find_images([tmp_path]), BicubicDownscale(scale=2), CropOptions(patch_size=8, scale=2))
        windows = whole.unfold(1, 8, 1).unfold(2, 8, 1)  # (3, rows, columns, 8, 8)
        found = 0
        for number in range(60):
            degraded = crops[number][0]
            found += bool((windows - degraded[:, None, None]).abs().amax(dim=(0, 3, 4)).min() < 1e-6)
        # an eighth is not flipped, and a quarter of these begins at an even pixel: some of 60 do
        assert found > 0

    def test_degradations_of_another_size_are_refused(self, three):
        crops = Crops(three, BicubicDownscale(scale=2), CropOptions(patch_size=8, scale=1))
        with pytest.raises(ValueError, match="scale=1"):
            crops[0]

    @pytest.mark.parametrize("degradation", [BayerMosaic(), Chain([JPEG(), GaussianNoise()])])
    def test_crops_as_large_as_the_image_work(self, tmp_path, degradation):
        save(tmp_path / "a.png", 8, 8)
        degraded, clean = Crops(find_images([tmp_path]), degradation, CropOptions(patch_size=8))[3]
        assert degraded.shape == clean.shape == (3, 8, 8)

    @pytest.mark.parametrize(("channels", "file"), [(1, 3), (3, 1), (3, 4)])
    def test_channels_are_converted(self, tmp_path, channels, file):
        save(tmp_path / "a.png", channels=file, value=100)
        _, clean = Crops(
            find_images([tmp_path]), GaussianNoise(), CropOptions(patch_size=8, channels=channels)
        )[0]
        assert clean.shape == (channels, 8, 8)
        assert torch.allclose(clean, torch.tensor(100 / 255), atol=1e-6)

    def test_a_file_that_breaks_later_is_named_and_replaced(self, three, caplog):
        three[1].clean.write_text("gone")
        crops = Crops(three, GaussianNoise(sigma=0), CropOptions(patch_size=8))
        samples = [crops[number] for number in range(3)]
        assert len(samples) == 3
        assert len(caplog.messages) == 1
        assert str(three[1].clean) in caplog.messages[0]

    def test_pixels_that_are_no_numbers_are_named(self, tmp_path, caplog):
        write_image(ImageFile(np.full((9, 9, 3), np.nan, np.float32)), tmp_path / "nan.tif")
        crops = Crops(find_images([tmp_path]), GaussianNoise(), CropOptions(patch_size=8))
        with pytest.raises(ValueError, match="none of the images"):
            crops[0]
        assert "nan.tif holds NaN" in caplog.text

    def test_images_without_degradation_are_refused(self, three):
        with pytest.raises(ValueError, match="need a degradation"):
            Crops(three, None, CropOptions())
        with pytest.raises(ValueError, match="no images"):
            Crops([], GaussianNoise(), CropOptions())

    @pytest.mark.parametrize("fault", [{"patch_size": 0}, {"scale": 0}, {"channels": 2}, {"seed": -1}])
    def test_options_are_checked(self, fault):
        with pytest.raises(ValueError, match=next(iter(fault))):
            CropOptions(**fault)


def test_validation_images_are_the_same_each_time(tmp_path):
    save(tmp_path / "a.png", 21, 33)
    save(tmp_path / "b.png", 20, 20)
    images = WholeImages(find_images([tmp_path]), GaussianNoise(), CropOptions(scale=1), size=16)
    assert len(images) == 2
    first, again = images[0], images[0]
    assert torch.equal(first[0], again[0])
    assert first[0].shape == first[1].shape == (3, 16, 16)
    assert not torch.equal(first[0] - first[1], images[1][0] - images[1][1])
    small, large = WholeImages(find_images([tmp_path]), BicubicDownscale(scale=3), CropOptions(scale=3))[0]
    assert (small.shape, large.shape) == ((3, 7, 11), (3, 21, 33))
