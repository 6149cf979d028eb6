# SPDX-License-Identifier: Apache-2.0
"""Stores that several processes write, and whose writers are killed: real processes, real signals."""

import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from diffeat import FeatureExtractor
from diffeat.features import Features
from diffeat.options import ExtractionOptions
from diffeat.store import FeatureStore, StoreOptions
from diffeat.store.transformer import FeatureTransformer
from diffusers import StableDiffusionPipeline
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from torch import nn

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux", reason="processes are forked, so that they load nothing anew"
    ),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
NAMES = ("first", "second")
FLOAT32 = StoreOptions(dtype="float32")
COUNT = 24


class Pixels:
    """An extractor whose features are the pixels of their image, so that it is plain whose they are."""

    name, revision, dtype, device = "pixels", None, torch.float32, torch.device("cpu")

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.model = nn.ModuleDict({name: nn.Identity() for name in NAMES})
        self.pipeline = SimpleNamespace(components={})

    def size_for(self, size):
        return (8, 8)

    def noise_levels(self, options):
        return ()

    def __call__(self, images, names, options, **more):
        time.sleep(self.seconds)
        pixels = torch.stack(images)
        return Features({name: pixels + NAMES.index(name) for name in names}, SimpleNamespace())


def image_of(number):
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def pixels_of(image, name):
    return torch.from_numpy(image).movedim(-1, 0) / 255 + NAMES.index(name)


def fill(folder, numbers, seconds=0.0, on_batch=None):
    images = [image_of(number) for number in numbers]
    return FeatureStore(str(folder)).add(
        Pixels(seconds), images, NAMES, storage=FLOAT32, batch_size=2, on_batch=on_batch
    )


@pytest.fixture
def start():
    """Start a process that fills a store and sends the number of every computed batch."""
    running = []
    context = multiprocessing.get_context("fork")

    def run(folder, numbers, seconds):
        receiver, sender = context.Pipe(duplex=False)

        def work():
            sender.send(0)
            fill(folder, numbers, seconds, lambda done, _: sender.send(done))

        process = context.Process(target=work)
        process.start()
        sender.close()  # a closed end is how its death is heard of
        running.append(process)
        assert receiver.recv() == 0
        return process, receiver

    yield run
    for process in running:
        process.kill()
        process.join()


def check(folder, numbers):
    """Every feature must be that of its image."""
    store = FeatureStore(str(folder))
    for number in numbers:
        (row,) = store.find([image_of(number)])
        for name in NAMES:
            assert torch.equal(store.read(name, row), pixels_of(image_of(number), name))


def test_two_writers_take_turns_and_leave_every_feature_to_its_image(start, tmp_path):
    writers = [start(tmp_path, range(first, COUNT, 2), 0.01) for first in (0, 1)]
    for process, _ in writers:
        process.join()
        assert process.exitcode == 0
    assert len(FeatureStore(str(tmp_path))) == COUNT
    check(tmp_path, range(COUNT))


def test_a_killed_writer_loses_at_most_what_is_at_work(start, tmp_path):
    process, told = start(tmp_path, range(COUNT), 0.05)
    while told.recv() < 6:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    store = FeatureStore(str(tmp_path))
    kept = [item.row for item in store.items()]
    # of six computed batches two may wait to be written while a third is
    assert kept == list(range(len(kept)))
    assert len(kept) >= 2 * (6 - 3)
    check(tmp_path, kept)
    report = fill(tmp_path, range(COUNT))  # the lock ended with its holder
    assert (report.cached, report.computed) == (len(kept), COUNT - len(kept))
    check(tmp_path, range(COUNT))
    fill(tmp_path / "whole", range(COUNT))
    for folder in (tmp_path, tmp_path / "whole"):
        FeatureStore(str(folder)).compact()
    for name in NAMES:
        files = [folder / "features.zarr" / name / "c.0.0.0.0" for folder in (tmp_path, tmp_path / "whole")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_killed_writer_lets_the_next_one_in(start, tmp_path):
    slow, told = start(tmp_path, range(COUNT), 0.5)
    assert told.recv() == 1
    process, _ = start(tmp_path, range(COUNT), 0.0)
    os.kill(slow.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == 0
    assert len(FeatureStore(str(tmp_path))) == COUNT
    check(tmp_path, range(COUNT))


def test_a_reader_sees_what_a_writer_has_finished(start, tmp_path):
    store = FeatureStore(str(tmp_path))
    assert len(store) == 0
    process, told = start(tmp_path, range(COUNT), 0.02)
    while told.recv() < 6:
        pass
    store.refresh()
    seen = [item.row for item in store.items()]
    assert seen
    assert all(torch.equal(store.read("first", row), pixels_of(image_of(row), "first")) for row in seen)
    process.join()
    assert len(store) == COUNT
    assert all(torch.equal(store.read("first", row), pixels_of(image_of(row), "first")) for row in seen)


def test_a_store_discarded_under_a_writer_refuses_its_batches(tmp_path):
    fill(tmp_path, range(4))
    store = FeatureStore(str(tmp_path))
    (item, *_) = store.items()
    fill(tmp_path / "other", range(4, 8))
    store.ledger.clear()
    with pytest.raises(RuntimeError, match="was discarded by another process"):
        store.ledger.mark("part", [item], {"first": (3, 8, 8)})


def test_a_long_wait_for_another_writer_is_told(start, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("diffeat.store.place._SILENCE", 0.1)
    slow, told = start(tmp_path, range(6), 0.3)
    assert told.recv() == 1
    fill(tmp_path, range(6))
    assert "another process writes to" in caplog.text
    slow.join()
    check(tmp_path, range(6))


def test_threads_with_stores_of_their_own_share_a_folder(tmp_path):
    numbers = ([*range(0, COUNT, 2), 1, 3], [*range(1, COUNT, 2), 0, 2])
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda each: fill(tmp_path, each), numbers))
    assert sum(report.computed for report in reports) == COUNT
    check(tmp_path, range(COUNT))


def test_scikit_learn_with_two_processes_and_a_cache(tmp_path, sd15_folder):
    names = ("mid-repeat0-res-out", "up-level1-repeat0-vit-block0-cross-q")
    options = ExtractionOptions(size=32)
    extractor = FeatureExtractor(StableDiffusionPipeline.from_pretrained(sd15_folder), name="tiny")
    images = [image_of(number) for number in range(8)]
    plain = FeatureTransformer(extractor, names, options=options).fit(images)
    expected = plain.transform(images)
    cached = FeatureTransformer(
        extractor, names, options=options, batch_size=2, cache=str(tmp_path), cache_storage=FLOAT32
    )
    steps = make_pipeline(cached, LogisticRegression())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # forked processes have none of the others
    try:
        with joblib.parallel_backend("multiprocessing"):
            scores = cross_val_score(steps, images, [0, 1] * 4, cv=2, n_jobs=2, error_score="raise")
    finally:
        torch.set_num_threads(threads)
    assert scores.shape == (2,)
    assert len(FeatureStore.cached(str(tmp_path), extractor, options, storage=FLOAT32)) == 8
    np.testing.assert_allclose(cached.fit(images).transform(images), expected, atol=1e-4)
