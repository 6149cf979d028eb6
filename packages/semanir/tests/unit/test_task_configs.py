# SPDX-License-Identifier: Apache-2.0
"""The configurations of the tasks, one file each."""

import pytest
import yaml
from semanir import SemanIRConfig
from semanir.training import fit, shipped_configs
from semanir.training.run import CONFIGS, find_config


def test_every_task_has_its_sizes():
    tasks = {"denoise-color", "denoise-gray", "jpeg-color", "jpeg-gray", "demosaic", "deblur", "weather"}
    wanted = {f"{task}-{size}" for task in tasks for size in ("tiny", "small", "base")}
    wanted |= {f"sr-x{scale}-{size}" for scale in (2, 3, 4) for size in ("small", "base")}
    assert set(shipped_configs()) == wanted


@pytest.mark.parametrize("name", shipped_configs())
def test_configurations_hold_together(name):
    text = find_config(name).read_text()
    found = yaml.safe_load(text)
    model, crops = found["model"], found["data"]["crops"]
    changes = {key: tuple(v) if isinstance(v, list) else v for key, v in model.get("network", {}).items()}
    network = SemanIRConfig.preset(model["preset"], **changes)
    assert network.in_channels == network.out_channels == crops["channels"]
    assert network.upscale == crops["scale"]
    assert max(model["random_k"]) <= network.window_size**2
    assert network.k <= network.window_size**2
    assert crops["patch_size"] % network.size_multiple == 0
    assert "semanir.training.AverageWeights" in [each["class_path"] for each in found["trainer"]["callbacks"]]
    steps = found["trainer"]["max_steps"]
    assert all(milestone < steps for milestone in model["milestones"])
    assert "[KAIR]" in text or "[GRL]" in text or "Nothing of this task is published" in text


def test_lightning_reads_one(capfd, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        fit("jpeg-color-tiny", tmp_path, ["--print_config"])
    assert stopped.value.code == 0
    shown = yaml.safe_load(capfd.readouterr().out)
    assert shown["data"]["degradation"]["class_path"] == "semanir.degradations.JPEG"
    assert shown["model"]["preset"] == "tiny"
    assert CONFIGS.is_dir()
