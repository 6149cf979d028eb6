# SPDX-License-Identifier: Apache-2.0
"""``semanir convert``: the tensors of a pickle as safetensors."""

from __future__ import annotations

from pathlib import Path

from common_kernels.runtime.cli import Output, emit, say


def convert(source: Path, /, *, output: Output) -> int:
    """Take the weights of another network out of a .pth or .ckpt file, into safetensors.

    Most networks of others are published as pickles, which can run code when they are opened, and
    `semanir restore` refuses them. Here the file is read by torch's loader that builds tensors and plain
    values only, and kept if spandrel knows the architecture. Needs: pip install "semanir[spandrel]".

    **Examples**

        semanir convert swinir.pth -o swinir.safetensors
        semanir restore photos/ -o large/ --model swinir.safetensors

    Exit code: 0 done, 2 nothing could be done.

    Args:
        source: Pickle of weights.
    """
    if not source.is_file():
        raise FileNotFoundError(f"{source} is no file")
    if output.output.exists() and not output.overwrite:
        raise FileExistsError(f"{output.output} exists: --overwrite replaces it")
    from semanir.foreign import convert_pickle

    architecture = convert_pickle(source, output.output)
    if output.json:
        entry = {"input": str(source), "output": str(output.output), "status": "done"}
        emit(entry | {"architecture": architecture})
    else:
        say(f"{output.output}: {architecture}")
    return 0
