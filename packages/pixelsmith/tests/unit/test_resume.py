# SPDX-License-Identifier: Apache-2.0
"""A stage that was stopped inside a batch gives the bytes of one that was not, whatever the network."""

import pytest
import torch
from pixelsmith.core.engine import run_stage
from pixelsmith.core.protocol import StageInterrupted
from pixelsmith.store import FolderStore


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5, 11, 18])
def test_a_batch_is_grouped_from_its_own_start(toys, tmp_path, stop):
    clean, config = toys.latents(2, 40, 33), toys.job(slider=2, batch_size=4)
    expected = run_stage(toys.Coupled(4), clean, config).data
    # the network of this test does depend on the batch
    assert not torch.equal(expected, run_stage(toys.Coupled(4), clean, toys.job(slider=2)).data)
    with pytest.raises(StageInterrupted):
        run_stage(
            toys.Coupled(4), clean, config, store=FolderStore(tmp_path).stage(0),
            on_patch=lambda progress: progress.calls == stop,
        )  # fmt: skip
    found = run_stage(toys.Coupled(4), clean, config, store=FolderStore(tmp_path).stage(0))
    assert torch.equal(found.data, expected)


def test_a_resumed_batch_repeats_no_more_than_itself(toys, tmp_path):
    clean, config = toys.latents(2, 40, 33), toys.job(slider=2, batch_size=4)
    whole, counted = toys.Coupled(4), []
    run_stage(whole, clean, config, on_patch=counted.append)
    first, second, seen = toys.Coupled(4), toys.Coupled(4), []
    with pytest.raises(StageInterrupted):
        run_stage(first, clean, config, store=FolderStore(tmp_path).stage(0), on_patch=lambda p: p.calls == 6)
    run_stage(second, clean, config, store=FolderStore(tmp_path).stage(0), on_patch=seen.append)
    assert [progress.calls for progress in seen] == list(range(7, len(counted) + 1))
    calls = [sum(count for _, count, _ in denoiser.batches) for denoiser in (first, second, whole)]
    assert calls[0] + calls[1] <= calls[2] + config.batch_size
