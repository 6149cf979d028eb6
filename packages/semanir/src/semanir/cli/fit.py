# SPDX-License-Identifier: Apache-2.0
"""``semanir fit``: training by LightningCLI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from common_kernels.runtime.cli import OutputPath, say
from cyclopts import Group, Parameter

EXTRA = ("pytorch_lightning", "torchmetrics", "jsonargparse", "tensorboard")


def fit(
    *changes: Annotated[str, Parameter(allow_leading_hyphen=True)],
    config: list[str],
    output: OutputPath,
    debug: Annotated[bool, Parameter(negative="", group=Group("Output", sort_key=9))] = False,
) -> None:
    """Train a network with the Lightning Trainer; a run that was stopped resumes exactly where it was.

    A configuration names network, data, loss, schedule and machine; its comments give the sources of its
    numbers. Any value is changed by an option of its dotted name, or by a file after another --config.
    `--print_config` shows all values without training. Under `torchrun` or SLURM, with
    `--trainer.devices` and `--trainer.num_nodes`, several GPUs train together. Needs:
    pip install "semanir[train]".

    **Examples**

        semanir fit --config denoise-color-tiny -o runs/a --data.train "[mine/]" --data.validation "[other/]"
        semanir fit --config sr-x4-small -o runs/x4 --model.weights runs/x2/model
        semanir fit --config denoise-color-base -o runs/big --trainer.devices 8 --trainer.strategy ddp

    Args:
        changes: Options of the configuration, such as --trainer.max_steps 1000.
        config: Shipped name, such as denoise-color-base, or a YAML file; a later one changes values of those
            before it.
        output: Folder of checkpoints, logs, samples, and the trained network in model/.
        debug: Traceback of an error instead of one sentence.
    """
    from importlib.util import find_spec

    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise ImportError(f"{', '.join(missing)} is missing: pip install 'semanir[train]'")
    from common_kernels.runtime.lightning import quiet_lightning

    from semanir.training import fit as run
    from semanir.training.run import find_config

    quiet_lightning()
    first, *others = config
    run(first, output, [*(f"--config={find_config(name)}" for name in others), *changes])
    folder = Path(output) / "model"
    if folder.is_dir():
        say(f"model: {folder}")
