# SPDX-License-Identifier: Apache-2.0
"""Pools and stages of vitron-tiny, on the smallest scale."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recipes.vitron_tiny.building import make_config, make_model, make_processor, make_tokenizer
from recipes.vitron_tiny.pool import make_pool, read_pool
from recipes.vitron_tiny.stages import CONVERSATION, COPIED, EXPLICIT, HARD, NAMED, pool_shares, stage_of
from recipes.vitron_tiny.tasks import TASKS, corpus
from recipes.vitron_tiny.training import train
from safetensors.torch import load_file

STAGES = ("joint", "see", "polish", "synergy")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a processor of the nano size, an untrained model and the pool of a stage."""
    folder = tmp_path_factory.mktemp("run")
    tokenizer = make_tokenizer(corpus(5, 10 * len(TASKS)), size=400)
    config = make_config(tokenizer, "nano")
    config.save_pretrained(folder)
    make_processor(tokenizer).save_pretrained(folder)
    make_model(config).save_pretrained(folder / "init")
    make_pool(folder / "pool-see", 100, shares=pool_shares("see"), tokenizer=folder, seed=5, processes=1)
    return folder


@pytest.mark.parametrize("name", STAGES)
def test_a_pool_has_what_its_stage_asks_for(name: str) -> None:
    asked, drawn = set(stage_of(name, 1).tasks), pool_shares(name)
    assert asked - {HARD} == set(drawn) <= {*TASKS, CONVERSATION, COPIED, EXPLICIT, NAMED}
    assert sum(drawn.values()) == pytest.approx(1)
    assert all(share > 0 for share in drawn.values())


def test_processes_read_shards_of_their_own(run: Path) -> None:
    whole = read_pool(run / "pool-see")
    parts = [read_pool(run / "pool-see", rank=rank, world_size=2) for rank in range(2)]
    assert len(whole) == sum(map(len, parts)) > 50
    assert all({each.task for each in part} >= {"question", "caption"} for part in parts)
    assert {tuple(each.ids) for each in parts[0]} != {tuple(each.ids) for each in parts[1]}


def test_a_missing_pool_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="draw them first"):
        read_pool(tmp_path)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # of Lightning
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_stage_continues_without_the_tower(run: Path, precision: str) -> None:
    stage = stage_of("see", 2, batch_size=16).model_copy(update={"name": f"see-{precision}"})
    train(run, run / "pool-see", stage, init=run / "init", precision=precision)
    before = load_file(run / "init" / "model.safetensors")
    after = load_file(run / f"stage-see-{precision}" / "model" / "model.safetensors")
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert {"embed_tokens", "projector"} <= {
        part for name in changed for part in ("embed_tokens", "projector") if part in name
    }
    assert not [name for name in changed if "vision_tower" in name]
