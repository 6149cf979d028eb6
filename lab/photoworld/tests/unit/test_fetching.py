# SPDX-License-Identifier: Apache-2.0
import json
import stat
from collections import Counter

import pytest
from photoworld import ArchiveUnreachableError, fetch, library
from photoworld.__main__ import app
from photoworld.fetching import is_complete
from photoworld.library import Library
from photoworld.manifest import COMMITTED, Manifest


def test_committed_splits_are_disjoint_by_object_and_by_photograph():
    manifest = Manifest.read()
    for kind in ("cutout", "photo"):
        splits: dict[str, set[str]] = {}
        for picture in manifest.pictures:
            if picture.kind == kind:
                splits.setdefault(picture.name if kind == "cutout" else picture.key, set()).add(picture.split)
        assert all(len(found) == 1 and "" not in found for found in splits.values())
    assert len(manifest.of("cutout", "test")) > 80
    assert not [each for each in manifest.pictures if not each.is_fetched and each.split != "test"]


def test_committed_pictures_are_named_once_with_licence_and_digest():
    manifest = Manifest.read()
    packages = json.loads(COMMITTED.read_text("utf-8"))["packages"]
    digests = Counter(picture.sha256 for picture in manifest.pictures if picture.is_fetched)
    assert max(digests.values()) == 1
    assert len(manifest.by_key) == len(manifest.pictures)
    for picture in manifest.pictures:
        assert picture.package in packages
        assert picture.licence
        assert picture.name.islower()
        assert not picture.sha256 or len(picture.sha256) == 64
        assert picture.kind != "cutout" or picture.english


def test_a_folder_that_was_not_filled_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m photoworld fetch"):
        Library(tmp_path)


def _client(folder, name, script):
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_without_the_archive_one_sentence_says_so(tmp_path, monkeypatch):
    _client(tmp_path, "apt-get", "exit 100")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArchiveUnreachableError, match=r"apt-get --quiet download .* failed") as caught:
        fetch(tmp_path / "pictures")
    assert "\n" not in str(caught.value)
    assert not is_complete(tmp_path / "pictures")


def test_pictures_of_another_content_are_refused(tmp_path, monkeypatch):
    _client(tmp_path, "apt-get", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"\d+ pictures differ from the manifest, the first is tuxpaint"):
        fetch(tmp_path / "pictures")
    assert not is_complete(tmp_path / "pictures")


def test_photographs_of_python_packages_need_no_archive(drawn_world):
    picture = next(each for each in Manifest.read().pictures if each.package == "scikit-image")
    image = Library(drawn_world)._open(picture)
    assert image.mode == "RGB"
    assert library().folder == drawn_world


def test_licences_name_every_package(capsys):
    app(["licences", "--json"], exit_on_error=False, result_action="return_value")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["package"] for line in lines] == list(json.loads(COMMITTED.read_text("utf-8"))["packages"])
    assert sum(sum(line["licences"].values()) for line in lines) == len(Manifest.read().pictures)
