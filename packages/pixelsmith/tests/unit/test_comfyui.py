# SPDX-License-Identifier: Apache-2.0
"""The nodes, loaded and run by the rules of ComfyUI."""

from pathlib import Path

import pytest
import torch
from common_kernels.runtime.comfyui_host import Interrupted, StandIn, load_pack, run_node
from common_kernels.runtime.hub import ModelNotFoundError
from pixelsmith.pipelines import PixelsmithSDPipeline
from tiny_models import tiny_pipeline

PACK = Path(__file__).parents[2] / "comfyui"
QUICK = {"num_inference_steps": 2, "prompt": "a red ball"}


@pytest.fixture(scope="module")
def nodes():
    return load_pack(PACK)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, nodes):
    folder = tmp_path_factory.mktemp("model") / "sd"
    tiny_pipeline("sd").save_pretrained(folder)
    with StandIn().installed() as host:
        (found,) = run_node(nodes["PixelsmithLoad"], model=str(folder), scheduler="euler")
    assert host.freed == 1
    assert type(found) is PixelsmithSDPipeline
    assert type(found.scheduler).__name__ == "EulerDiscreteScheduler"
    return found


def test_images_of_a_batch_are_enlarged_and_counted(nodes, pipeline):
    images = torch.rand(2, 64, 48, 3, generator=torch.Generator().manual_seed(0))
    with StandIn().installed() as host:
        (found,) = run_node(
            nodes["PixelsmithUpscale"], pipeline=pipeline, images=images, scale=1.5, slider="1.0", **QUICK
        )
    assert found.shape == (2, 96, 72, 3)
    done, total = zip(*host.steps, strict=True)
    assert list(done) == sorted(done)  # one bar for both images
    assert (1000 in done, done[-1], set(total)) == (True, 2000, {2000})
    assert host.asked == len(done) > 10
    given = {"pipeline": pipeline, "images": images[1:], "scale": 1.5, "slider": "1.0", "seed": 1}
    (again,) = run_node(nodes["PixelsmithUpscale"], **given, **QUICK)
    assert torch.equal(again[0], found[1])  # the seed of an image does not depend on its batch


def test_a_negative_prompt_counts(nodes, pipeline):
    given = {"pipeline": pipeline, "images": torch.rand(1, 64, 64, 3), "scale": 1.0, "slider": "1", **QUICK}
    (plain,), (negated,) = (
        run_node(nodes["PixelsmithUpscale"], **given, negative_prompt=text) for text in ("", "fog")
    )
    assert not torch.equal(plain, negated)


def test_images_are_generated(nodes, pipeline):
    given = {"pipeline": pipeline, "width": 96, "height": 64, "count": 2, "wrap": "horizontal"}
    (found,) = run_node(nodes["PixelsmithGenerate"], **given, **QUICK)
    assert found.shape == (2, 64, 96, 3)
    assert not torch.equal(found[0], found[1])


def test_a_user_cancels_within_an_image(nodes, pipeline):
    with StandIn(interrupt_at=3).installed() as host, pytest.raises(Interrupted):
        run_node(nodes["PixelsmithUpscale"], pipeline=pipeline, images=torch.rand(1, 64, 64, 3), **QUICK)
    assert len(host.steps) == 2


def test_checkpoints_are_those_of_the_host(nodes, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("a.safetensors", "b.ckpt"):
        (tmp_path / "checkpoints" / name).write_bytes(b"nothing")
    with StandIn(tmp_path).installed():
        choices, _ = nodes["PixelsmithLoad"].INPUT_TYPES()["required"]["checkpoint"]
        assert choices == ["none", "a.safetensors"]  # pickles are not offered
        with pytest.raises(Exception, match="safetensors"):
            run_node(nodes["PixelsmithLoad"], checkpoint="a.safetensors")


def test_mistakes_are_sentences(nodes, pipeline):
    with pytest.raises(ModelNotFoundError, match="no model"):
        run_node(nodes["PixelsmithLoad"], model="nowhere")
    with pytest.raises(ValueError, match="LoRA is PATH or PATH:WEIGHT"):
        run_node(nodes["PixelsmithLoad"], lora="style.safetensors:much")
    with pytest.raises(ValueError, match="--slider takes steps"):
        run_node(nodes["PixelsmithGenerate"], pipeline=pipeline, slider="much", **QUICK)
