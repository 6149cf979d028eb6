# SPDX-License-Identifier: Apache-2.0
"""Training from a configuration file, by LightningCLI."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

from common_kernels.runtime.lightning import expected_warnings

from semanir.training.datamodule import SemanIRData
from semanir.training.module import SemanIRModule

CONFIGS = Path(__file__).parents[1] / "configs"
LAST = "last.ckpt"


def shipped_configs() -> list[str]:
    """Return the names of the configurations inside this package."""
    return sorted(file.stem for file in CONFIGS.glob("*.yaml"))


def find_config(name: str) -> Path:
    """Return the file of a shipped configuration, or the file itself.

    Raises:
        ValueError: If there is none; the message lists the shipped names.
    """
    shipped = CONFIGS / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    if Path(name).name == name and shipped.is_file():
        return shipped
    raise ValueError(f"{name} is no file, and no configuration of {', '.join(shipped_configs())}")


def fit(config: str, output: str | Path, arguments: Sequence[str] = ()) -> None:
    """Train, or resume from ``last.ckpt`` of the output folder.

    Args:
        config: Name of a shipped configuration, or a YAML file.
        output: Folder of checkpoints, logs, samples and the trained ``model/``.
        arguments: Further options of LightningCLI, such as ``--trainer.max_steps 100``.

    Raises:
        ValueError: If the configuration or an option is wrong, or the checkpoint is of another network.
        RuntimeError: If the run was interrupted.
    """
    from jsonargparse import ArgumentError
    from pytorch_lightning.cli import LightningCLI

    last = Path(output) / LAST
    words = ["--config", str(find_config(config)), f"--trainer.default_root_dir={output}", *arguments]
    no_validation = "Total length of `list` across ranks is zero"
    with expected_warnings("LightningCLI's args parameter", no_validation):
        warnings.simplefilter("ignore", DeprecationWarning)  # of libraries to each other
        try:
            cli = LightningCLI(
                SemanIRModule,
                SemanIRData,
                args=words,
                run=False,
                save_config_kwargs={"overwrite": True},
                parser_kwargs={"exit_on_error": False},
            )
        except (ArgumentError, argparse.ArgumentError) as error:
            raise ValueError(f"{config}: {error}") from error
        # the subcommand of LightningCLI would replace what was asked for by what the checkpoint holds
        resumed = str(last) if last.exists() else None
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=resumed, weights_only=True)
    if cli.trainer.interrupted:
        raise RuntimeError(f"interrupted; the same command resumes from {last}")
