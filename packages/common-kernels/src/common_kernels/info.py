# SPDX-License-Identifier: Apache-2.0
"""``python -m common_kernels.info``: which backends this installation has here, and why not the others."""

from __future__ import annotations

import sys
from importlib.metadata import version

import torch

from common_kernels._native import LIBRARY, instruction_sets, why_no_native
from common_kernels._triton import why_no_triton


def describe() -> dict[str, str]:
    """Return one line on each part that an installation may lack, by its name.

    Example:
        >>> list(describe())
        ['common-kernels', 'torch', 'threads', 'native', 'csr', 'triton']
    """
    reason = why_no_native()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    has_mkl = torch.backends.mkl.is_available()
    return {
        "common-kernels": version("common-kernels"),
        "torch": str(torch.__version__),
        "threads": str(torch.get_num_threads()),
        "native": f"no: {reason}" if reason else f"yes: {LIBRARY.name}, {instruction_sets()[0]}",
        "csr": "yes" if has_mkl else "no: needs a torch built with MKL for its sparse products",
        "triton": f"no: {no}" if (no := why_no_triton(torch.empty(0, device=device))) else "yes",
    }


def main() -> int:
    """Print the lines and return the exit code."""
    lines = describe()
    width = max(map(len, lines))
    sys.stdout.writelines(f"{name:{width}}  {text}\n" for name, text in lines.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
