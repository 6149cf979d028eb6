# SPDX-License-Identifier: Apache-2.0
from itertools import islice

import pytest
import torch
from shapeworld import draw_scene, render
from shapeworld.dataset import Scenes, SceneStream, to_sample
from torch.utils.data import DataLoader


def test_sample_is_the_rendering_as_tensors() -> None:
    sample = Scenes(4, to_sample, seed=2, split="val", side=32)[3]
    rendering = render(draw_scene(2, 3, split="val"), 32)
    assert sample["image"].shape == (3, 32, 32)
    assert sample["image"].dtype == torch.float32
    torch.testing.assert_close(
        sample["image"].permute(1, 2, 0) * 255, torch.from_numpy(rendering.image).float()
    )
    for attribute in ("shape", "colour", "material"):
        assert torch.equal(sample[attribute], torch.from_numpy(rendering.semantic(attribute)).long())
    assert torch.equal(sample["instances"], torch.from_numpy(rendering.instances).long())
    for thing in rendering.scene.things:
        assert thing.shape in sample["caption"]


def test_samples_are_drawn_anew_and_alike() -> None:
    scenes = Scenes(10, to_sample)
    first, again = scenes[5], scenes[5]
    assert first["caption"] == again["caption"]
    assert torch.equal(first["image"], again["image"])


def test_loader_stacks_samples() -> None:
    batch = next(iter(DataLoader(Scenes(4, to_sample, side=32), batch_size=4)))
    assert batch["image"].shape == (4, 3, 32, 32)
    assert len(batch["caption"]) == 4


def test_beyond_the_size_is_an_index_error() -> None:
    with pytest.raises(IndexError, match=r"index must be in \[0, 4\), got 4"):
        Scenes(4, to_sample)[4]


def only_index(rendering: object, rng: object) -> object:
    return rendering


class Numbers(Scenes[int]):
    """Gives back the number it was asked for."""

    def sample(self, index: int) -> int:
        return index


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_deals_every_number_once(workers: int) -> None:
    stream = SceneStream(Numbers(0, only_index), start=30, step=1)
    seen = [
        int(x) for batch in islice(DataLoader(stream, batch_size=2, num_workers=workers), 6) for x in batch
    ]
    assert sorted(seen) == list(range(30, 42))


def test_streams_of_two_processes_interleave() -> None:
    streams = [SceneStream(Numbers(0, only_index), start=rank, step=2) for rank in (0, 1)]
    assert [list(islice(stream, 3)) for stream in streams] == [[0, 2, 4], [1, 3, 5]]
