# SPDX-License-Identifier: Apache-2.0
import errno
import gc
import pickle
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from common_kernels.runtime.processes import Processes
from diffeat import FeatureExtractor
from diffeat.options import ExtractionOptions, MapOptions
from diffeat.store import (
    FeatureDataset,
    FeatureStore,
    StoreError,
    StoreFullError,
    StoreOptions,
    load_features,
    save_features,
)
from diffeat.store.arrays import FeatureArrays
from diffeat.store.place import Place
from diffusers import StableDiffusionPipeline
from torch.utils.data import DataLoader

NAMES = ("mid-repeat0-res-out", "up-level1-repeat0-vit-block0-cross-q")
SIZE = 32


@pytest.fixture(scope="module")
def extractor(sd15_folder):
    return load(sd15_folder)


def load(folder):
    return FeatureExtractor(StableDiffusionPipeline.from_pretrained(folder), name="tiny")


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 30 + i, 3), dtype=np.uint8) for i in range(5)]


OPTIONS = ExtractionOptions(size=SIZE)
FLOAT32 = StoreOptions(dtype="float32")


def content_of(folder: Path) -> dict[str, object]:
    """All arrays of a store byte by byte, and its images by row."""
    store = FeatureStore(str(folder))
    store.compact()
    assert not list((folder / "parts").glob("*"))
    arrays = folder / "features.zarr"
    files = {str(f.relative_to(arrays)): f.read_bytes() for f in sorted(arrays.rglob("*")) if f.is_file()}
    return {**files, "items": store.items(), "names": store.names}


@pytest.fixture
def filled(tmp_path, extractor, images):
    store = FeatureStore(str(tmp_path / "whole"))
    store.add(extractor, images, NAMES, OPTIONS, storage=FLOAT32, batch_size=2)
    return store


def test_what_is_read_is_what_was_extracted(filled, extractor, images):
    direct = extractor(images, NAMES, OPTIONS, batch_size=2)
    assert filled.names == tuple(direct)
    for name in NAMES:
        assert torch.equal(filled.read(name), direct[name])
        assert torch.equal(filled.read(name, 3), direct[name][3])
        assert filled.shape(name) == tuple(direct[name].shape[1:])


def test_features_come_with_how_they_came_about(filled):
    meta = filled.features([1, 4]).meta
    assert meta.options == ExtractionOptions(size=(SIZE, SIZE), prompt=("", ""))
    assert (meta.dtype, len(meta.image_hashes)) == ("float32", 2)
    assert meta.noise_levels[0].timestep == 50
    assert meta.noise_levels[0].effective == 51


def test_half_precision_is_rounded_once(tmp_path, extractor, images):
    store = FeatureStore(str(tmp_path / "half"))
    store.add(extractor, images, NAMES, OPTIONS, batch_size=5)
    direct = extractor(images, NAMES, OPTIONS, batch_size=5)
    assert all(torch.equal(store.read(name), direct[name].half()) for name in NAMES)


def test_values_beyond_half_precision_are_refused(tmp_path, extractor, images, monkeypatch):
    whole = FeatureExtractor.__call__

    def large(self, *args, **options):
        features = whole(self, *args, **options)
        return replace(features, tensors={name: value * 0 + 1e5 for name, value in features.items()})

    monkeypatch.setattr(FeatureExtractor, "__call__", large)
    store = FeatureStore(str(tmp_path / "half"))
    with pytest.raises(StoreError, match=r"reaches 1e\+05, which float16 cannot hold; store float32"):
        store.add(extractor, images, NAMES, OPTIONS)
    store.add(extractor, images, NAMES, OPTIONS, storage=FLOAT32)
    assert (store.read(NAMES[0]) == 1e5).all()


class BoomError(Exception):
    pass


@pytest.mark.parametrize("moment", ["between batches", "before the mark", "moving to the arrays"])
def test_a_failed_run_resumes_to_identical_content(filled, tmp_path, extractor, images, monkeypatch, moment):
    def after_first(done, _):
        if done == 2:
            raise BoomError

    def boom(*_):
        raise BoomError

    broken = FeatureStore(str(tmp_path / "broken"))
    if moment == "before the mark":
        monkeypatch.setattr(broken.ledger, "mark", boom)
    if moment == "moving to the arrays":
        monkeypatch.setattr(broken.ledger, "forget", boom)
    callback = after_first if moment == "between batches" else None
    with pytest.raises(BoomError):
        broken.add(extractor, images, NAMES, OPTIONS, storage=FLOAT32, batch_size=2, on_batch=callback)
    again = FeatureStore(str(tmp_path / "broken"))
    report = again.add(extractor, images, NAMES, OPTIONS, storage=FLOAT32, batch_size=2)
    assert report.computed + report.cached == 5
    assert content_of(tmp_path / "broken") == content_of(tmp_path / "whole")


def test_nothing_is_computed_twice(filled, extractor, images, monkeypatch):
    report = filled.add(extractor, images[::-1], NAMES, OPTIONS, storage=FLOAT32)
    assert (report.images, report.computed, report.cached) == (5, 0, 5)
    asked = []
    original = FeatureExtractor.__call__

    def spy(self, images, names, options, **more):
        asked.append((len(images), list(names)))
        return original(self, images, names, options, **more)

    monkeypatch.setattr(FeatureExtractor, "__call__", spy)
    filled.add(extractor, images[:2], ["mid-repeat1-res-out", *NAMES], OPTIONS, storage=FLOAT32)
    assert asked == [(2, ["mid-repeat1-res-out"])]
    assert [item.row for item in filled.items()] == [0, 1]
    assert [item.row for item in filled.items(NAMES)] == [0, 1, 2, 3, 4]


def test_doubles_count_once_and_prompts_count(tmp_path, extractor, images):
    store = FeatureStore(str(tmp_path / "s"))
    results = []
    options = replace(OPTIONS, prompt=("a", "a", "b"))
    report = store.add(extractor, [images[0]] * 3, NAMES[0], options, on_item=results.append)
    assert [result.status for result in results] == ["done"] * 3
    assert (report.images, len(store)) == (2, 2)
    assert store.find([images[0]], "b") == [1]
    with pytest.raises(LookupError, match="with prompt 'c'"):
        store.find([images[0]], "c")


def test_several_timesteps_and_maps(tmp_path, extractor, images):
    store = FeatureStore(str(tmp_path / "s"))
    maps = MapOptions(heads="mean", tokens=(0, 1))
    options = ExtractionOptions(size=SIZE, timesteps=(50, 100), maps=maps)
    names = ["mid-vit-block0-cross-map", "mid-vit-out"]
    store.add(extractor, images[:2], names, options, storage=FLOAT32)
    direct = extractor(images[:2], names, options)
    assert set(store.names) == set(direct)
    assert all(torch.equal(store.read(name), direct[name]) for name in direct)
    assert torch.equal(store.features().at(100)["mid-vit-out"], direct.at(100)["mid-vit-out"])


def test_processes_share_the_work(filled, tmp_path, extractor, images):
    def process(rank):
        return Processes(rank=rank, world_size=2, connected=False)

    store = FeatureStore(str(tmp_path / "shared"))
    for rank in (0, 1):
        report = store.add(
            extractor, images, NAMES, OPTIONS, storage=FLOAT32, batch_size=2, processes=process(rank)
        )
        assert report.computed == (3, 2)[rank]
        assert len(store) == (3, 5)[rank]
    assert content_of(tmp_path / "shared") == content_of(tmp_path / "whole")


def test_busy_shares_are_of_the_whole_time(filled, tmp_path, extractor, images):
    report = FeatureStore(str(tmp_path / "s")).add(extractor, images, NAMES, OPTIONS, storage=FLOAT32)
    assert set(report.shares) == {"read", "compute", "write"}
    assert all(0 < share <= 1 for share in report.shares.values())


def test_a_store_of_another_setting_is_refused(filled, extractor, images):
    with pytest.raises(StoreError, match="holds features of seed 0, got 1; use another folder"):
        filled.add(extractor, images, NAMES, ExtractionOptions(size=SIZE, seed=1), storage=FLOAT32)


def test_a_store_of_another_model_is_refused(filled, sd15_folder, images):
    other = load(sd15_folder)
    with torch.no_grad():
        next(other.model.parameters()).mul_(1.5)
    with pytest.raises(StoreError, match="holds features of fingerprint"):
        filled.add(other, images, NAMES, OPTIONS, storage=FLOAT32)


def test_a_store_of_another_version_is_refused(filled):
    group = zarr.open_group(f"{filled.url}/features.zarr", mode="r+")
    group.attrs["diffeat"] = {**group.attrs["diffeat"], "format": 99}
    with pytest.raises(StoreError, match="has format 99, this version of diffeat reads 2: extract again"):
        FeatureStore(filled.url)


def test_a_group_of_somebody_else_is_refused(tmp_path):
    zarr.create_group(str(tmp_path / "other" / "features.zarr"))
    with pytest.raises(StoreError, match="is not a store of features"):
        FeatureStore(str(tmp_path / "other"))


def test_a_damaged_ledger_is_named(filled, tmp_path):
    (tmp_path / "whole" / "ledger.sqlite").write_text("{" * 4096)
    with pytest.raises(StoreError, match=r"ledger\.sqlite is damaged"):
        FeatureStore(filled.url)


def test_a_store_that_is_dropped_closes_its_ledger(filled, monkeypatch):
    # from Python 3.13 on, one that is left open warns in whatever runs when it is collected
    opened, connect = [], sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **kwargs: opened.append(connect(*args, **kwargs)) or opened[-1]
    )
    store = FeatureStore(filled.url)
    store.ledger.refresh()
    del store
    gc.collect()
    assert len(opened) == 2
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


def test_lost_values_are_not_read_as_zeros(filled, tmp_path):
    for shard in (tmp_path / "whole" / "features.zarr" / NAMES[0]).glob("c.*"):
        shard.unlink()
    assert filled.read(NAMES[1], 2).isfinite().all()
    with pytest.raises(StoreError, match="row 2 is lost from the store"):
        filled.read(NAMES[0], 2)


def test_a_shard_that_is_cut_short_is_named(filled, tmp_path):
    (shard,) = (tmp_path / "whole" / "features.zarr" / NAMES[0]).glob("c.*")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(StoreError, match="is damaged: the store cannot be trusted"):
        filled.read(NAMES[0], 4)


def test_a_full_disk_is_one_sentence_and_loses_nothing(filled, tmp_path, extractor, images, monkeypatch):
    store = FeatureStore(str(tmp_path / "small"))
    mark = store.ledger.mark
    calls = []

    def full(*args):
        calls.append(args)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        mark(*args)

    monkeypatch.setattr(store.ledger, "mark", full)
    with pytest.raises(StoreFullError, match=r"no space is left at .* every finished batch is kept"):
        store.add(extractor, images, NAMES, OPTIONS, storage=FLOAT32, batch_size=2)
    again = FeatureStore(str(tmp_path / "small"))
    assert [item.row for item in again.items()] == [0, 1]
    again.add(extractor, images, NAMES, OPTIONS, storage=FLOAT32, batch_size=2)
    assert content_of(tmp_path / "small") == content_of(tmp_path / "whole")


def test_unknown_names_of_a_store(filled):
    with pytest.raises(LookupError, match="did you mean mid-repeat0-res-out"):
        filled.read("mid-repeat9-res-out")
    with pytest.raises(LookupError, match="not there for row 9"):
        filled.read(NAMES[0], [9])
    with pytest.raises(LookupError, match="matches none"):
        filled.match("down-*")


def test_a_store_lives_on_any_file_system(filled, extractor, images):
    store = FeatureStore("memory://features/run")
    store.add(extractor, images, NAMES, OPTIONS, storage=FLOAT32, batch_size=2)
    again = FeatureStore("memory://features/run")
    assert all(torch.equal(again.read(name), filled.read(name)) for name in NAMES)


def test_many_images_share_a_file(filled, tmp_path):
    arrays = FeatureArrays(Place(str(tmp_path / "many")))
    arrays.prepare(filled.settings)
    for name in "abcd":
        arrays.grow(name, (8, 2, 2), np.dtype("float16"), 1024)
        for start in range(0, 1024, arrays.shard_rows(name)):
            stop = start + arrays.shard_rows(name)
            values = {row: np.full((8, 2, 2), row, np.float16) for row in range(start, stop)}
            arrays.write(name, start, stop, values)
    assert len(list((tmp_path / "many").rglob("*"))) <= 0.1 * 1024
    assert arrays.read("d", 1023).tolist() == np.full((8, 2, 2), 1023).tolist()


def test_cached_stores_lie_apart(tmp_path, extractor):
    one = FeatureStore.cached(str(tmp_path), extractor, OPTIONS)
    same = FeatureStore.cached(str(tmp_path), extractor, OPTIONS)
    other = FeatureStore.cached(str(tmp_path), extractor, ExtractionOptions(size=SIZE, seed=1))
    assert one.url == same.url != other.url


def test_wrong_arguments(tmp_path, extractor, images):
    store = FeatureStore(str(tmp_path / "s"))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        store.add(extractor, images, NAMES, batch_size=0)
    with pytest.raises(ValueError, match="got 2 for 5 images"):
        store.add(extractor, images, NAMES, ExtractionOptions(prompt=("a", "b")))
    with pytest.raises(ValueError, match="a store holds features of one size"):
        store.add(extractor, images, NAMES, ExtractionOptions(keep_aspect=True))
    with pytest.raises(ValueError, match="at least one image"):
        store.add(extractor, [], NAMES)
    with pytest.raises(ValueError, match="'float16' or 'float32'"):
        store.add(extractor, images, NAMES, storage=StoreOptions(dtype="int8"))
    with pytest.raises(FileNotFoundError):
        store.add(extractor, [tmp_path / "none.png"], NAMES)
    with pytest.raises(StoreError, match="there is no store"):
        store.features()


def test_dataset_goes_through_loaders_and_to_workers(filled):
    data = FeatureDataset(filled.url, "mid-*", targets=range(5))
    features, target = data[3]
    assert torch.equal(features[NAMES[0]], filled.read(NAMES[0], 3))
    assert target == 3
    batch, targets = next(iter(DataLoader(pickle.loads(pickle.dumps(data)), batch_size=5)))
    assert torch.equal(batch[NAMES[0]], filled.read(NAMES[0]))
    assert targets.tolist() == [0, 1, 2, 3, 4]


def test_dataset_transform_rows_and_mistakes(filled):
    data = FeatureDataset(filled, NAMES[0], rows=[4, 0], transform=lambda found: found[NAMES[0]].mean())
    assert len(data) == 2
    assert torch.equal(data[0], filled.read(NAMES[0], 4).mean())
    with pytest.raises(ValueError, match="one per row, got 1 for 5"):
        FeatureDataset(filled, targets=[0])


def test_single_file_round_trip(tmp_path, extractor, images):
    features = extractor(
        images[:1],
        [*NAMES, "mid-vit-block0-self-map"],
        ExtractionOptions(size=SIZE, timesteps=(50, 100), prompt=("a",)),
    )
    path = str(tmp_path / "features.safetensors")
    save_features(features, path)
    loaded = load_features(path)
    assert list(loaded) == list(features)
    assert all(torch.equal(loaded[name], features[name]) for name in features)
    assert loaded.meta == features.meta


def test_other_files_are_refused(tmp_path):
    file = tmp_path / "other.safetensors"
    file.write_bytes(b"not a file of tensors")
    with pytest.raises(StoreError, match=r"other\.safetensors is not a file of features"):
        load_features(str(file))


def test_bad_images_are_left_out_and_told(tmp_path, extractor, images):
    Path(tmp_path / "text.png").write_text("no image")
    mixed = [images[0], tmp_path / "text.png", tmp_path / "none.png", images[1]]
    store, results = FeatureStore(str(tmp_path / "s")), []
    report = store.add(extractor, mixed, NAMES, OPTIONS, on_item=results.append)
    assert (report.computed, report.failed, len(store)) == (2, 2, 2)
    found = {str(result.image): result for result in results if result.status == "failed"}
    assert {Path(path).name for path in found} == {"text.png", "none.png"}
    again = []
    store.add(extractor, mixed, NAMES, OPTIONS, on_item=again.append)
    assert sorted(result.status for result in again) == ["failed", "failed", "skipped", "skipped"]


def test_a_store_is_discarded_on_request(filled, tmp_path, extractor, images):
    other = ExtractionOptions(size=SIZE, seed=1)
    report = filled.add(extractor, images[:2], NAMES[:1], other, overwrite=True)
    assert (report.computed, report.cached) == (2, 0)
    assert (len(filled), filled.names) == (2, NAMES[:1])
    assert filled.settings.options.seed == 1
    direct = extractor(images[:2], NAMES[:1], other)
    assert torch.equal(FeatureStore(filled.url).read(NAMES[0]), direct[NAMES[0]].half())
    filled.add(extractor, images, NAMES, OPTIONS, storage=FLOAT32, batch_size=2, overwrite=True)
    FeatureStore(str(tmp_path / "new")).add(extractor, images, NAMES, OPTIONS, storage=FLOAT32, batch_size=2)
    assert content_of(tmp_path / "whole") == content_of(tmp_path / "new")
