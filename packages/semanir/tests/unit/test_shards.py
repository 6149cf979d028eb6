# SPDX-License-Identifier: Apache-2.0
"""Samples in tar files are those of folders."""

import io
import tarfile

import numpy as np
import pytest
import torch
from common_kernels.runtime.images import ImageError
from PIL import Image
from semanir.data import CropOptions, Crops, PairedFolders, find_images, find_pairs
from semanir.data.shards import find_in_shards
from semanir.degradations import GaussianNoise


def encoded(seed, size=(24, 20)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def pack(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_clean_images_are_the_samples_of_a_folder(tmp_path):
    contents = {f"{number:03}.png": encoded(number) for number in range(5)}
    folder = tmp_path / "images"
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    pack(tmp_path / "a-00.tar", dict(list(contents.items())[:3]) | {"000.json": b"{}"})
    pack(tmp_path / "a-01.tar", dict(list(contents.items())[3:]))
    found = find_in_shards([str(tmp_path / "a-{00..01}.tar")])
    assert found == find_in_shards([str(tmp_path / "a-*.tar")])
    crops = [
        Crops(pairs, GaussianNoise(sigma=20), CropOptions(patch_size=12))
        for pairs in (found, find_images([folder]))
    ]
    for number in range(12):
        for ours, theirs in zip(crops[0][number], crops[1][number], strict=True):
            assert torch.equal(ours, theirs)


def test_pairs(tmp_path):
    members = {}
    for kind in ("clean", "degraded"):
        (tmp_path / kind).mkdir()
        for number in range(2):
            content = encoded(10 * number + len(kind))
            (tmp_path / kind / f"{number}.png").write_bytes(content)
            members[f"set/{number}.{kind}.png"] = content
    pack(tmp_path / "a.tar", members)
    folders = PairedFolders(degraded=str(tmp_path / "degraded"), clean=str(tmp_path / "clean"))
    options = CropOptions(patch_size=12)
    shards, plain = (
        Crops(pairs, None, options)
        for pairs in (find_in_shards([str(tmp_path / "a.tar")]), find_pairs([folders]))
    )
    for ours, theirs in zip(shards[1], plain[1], strict=True):
        assert torch.equal(ours, theirs)


def test_what_cannot_be_used_is_named_and_another_takes_its_place(tmp_path, caplog):
    pack(tmp_path / "a.tar", {"0.png": b"no image", "1.png": encoded(1, (8, 30)), "2.png": encoded(2)})
    crops = Crops(
        find_in_shards([str(tmp_path / "a.tar")]), GaussianNoise(sigma=20), CropOptions(patch_size=12)
    )
    samples = [crops[number] for number in range(6)]
    assert all(clean.shape == (3, 12, 12) for _, clean in samples)
    assert f"{tmp_path / 'a.tar'}:0.png" in caplog.text
    assert "1.png is 30 x 8 pixels, less than 12" in caplog.text


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.degraded.png": b""}, "a sample is clean, or clean and degraded, but 0 has degraded"),
        ({"0.clean.png": b"", "0.other.png": b""}, "0 has clean, other"),
        ({"0.txt": b""}, "no image in"),
    ],
)
def test_shards_that_make_no_sense_are_refused(tmp_path, members, message):
    pack(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=message):
        find_in_shards([str(tmp_path / "a.tar")])


def test_files_that_are_no_shards(tmp_path):
    with pytest.raises(ValueError, match="is no file"):
        find_in_shards([str(tmp_path / "{0..1}.tar")])
    pack(tmp_path / "a.tar", {"0.png": encoded(0)}, mode="w:gz")
    with pytest.raises(ValueError, match="without compression"):
        find_in_shards([str(tmp_path / "a.tar")])
    pack(tmp_path / "b.tar", {"0.png": encoded(0)})
    [pair] = find_in_shards([str(tmp_path / "b.tar")])
    (tmp_path / "b.tar").write_bytes(b"")
    with pytest.raises(ImageError, match="cut short"):
        pair.clean.read()
