# SPDX-License-Identifier: Apache-2.0
"""A run that was killed and resumed gives the weights of an uninterrupted one, to the bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from vitron.data.conditions import _key, prompt_of
from vitron.data.drawn import write_drawn_data
from vitron.data.files import read_samples
from vitron.training import list_stages

from ..model.backbones import save_backbone  # noqa: TID252  # models that several folders use

DRILL = Path(__file__).with_name("drill.py")


def write_conditions(folder, name="text_to_image", shape=(6, 10)):
    """Store random embeddings of the prompts of a data set."""
    calls = [call for _, each in read_samples(folder) for message in each.messages for call in message.calls]
    keys = sorted({_key(prompt_of(call)) for call in calls if call.module == name})
    place = folder / "conditions" / name
    place.mkdir(parents=True)
    rng = np.random.default_rng(0)
    save_file({key: rng.normal(size=shape).astype(np.float16) for key in keys}, place / "0.safetensors")
    record = {"pipeline": "p", "digest": "d", "num_vectors": shape[0], "width": shape[1]}
    (place / "record.json").write_text(json.dumps(record | {"files": dict.fromkeys(keys, "0.safetensors")}))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A plain vision language model, and data for every stage."""
    folder = tmp_path_factory.mktemp("exact")
    save_backbone("internvl", folder / "model")
    write_drawn_data(folder / "data", scenes=2)
    write_conditions(folder / "data")
    return folder


def drill(folder, stages, **more):
    """Train each stage at once, and again with a kill in the middle; return weights and exit codes."""
    common = {"model": str(folder / "model"), "data": str(folder / "data")} | more
    jobs, places = [], []
    for stage in stages:
        whole, cut = (folder / f"{kind}-{stage}-{len(more)}" for kind in ("whole", "cut"))
        places.append((whole, cut))
        jobs += [
            common | {"stage": stage, "out": str(whole)},
            common | {"stage": stage, "out": str(cut), "kill_at": 3},
            # what the first start read in its own process, this one reads in two others
            common | {"stage": stage, "out": str(cut), "workers": 2 * (not more)},
        ]
    ran = subprocess.run(
        [sys.executable, str(DRILL), json.dumps(jobs)],
        capture_output=True,
        text=True,
        timeout=1500,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    codes = ran.stdout.split()[-len(jobs) :]
    assert codes == ["0", str(-signal.SIGKILL), "0"] * len(stages), ran.stderr[-4000:]
    return [[load_file(each / "model" / "model.safetensors") for each in pair] for pair in places]


def compare(found):
    for whole, cut in found:
        assert whole.keys() == cut.keys()
        for name, weight in whole.items():
            assert np.array_equal(weight, cut[name]), name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are copies of another")
class TestKilledRuns:
    def test_every_stage_resumes_to_the_bit(self, base):
        found = drill(base, list_stages())
        compare(found)
        # the heads that the data ask for were made, and saved
        assert "condition_heads.text_to_image.outlet.weight" in found[list_stages().index("1.3")][0]

    def test_two_processes_resume_to_the_bit(self, base):
        compare(drill(base, ["1.2", "3"], devices=2))
