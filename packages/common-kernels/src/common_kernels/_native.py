# SPDX-License-Identifier: Apache-2.0
"""The compiled CPU kernels: where they are, why not, and which instruction set they use.

The library is built with the package where a C++ compiler is found and needs no particular torch: it is given
the addresses of the stable C functions of the torch that runs. Nothing is compiled at run time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Generator
from pathlib import Path

import torch

_INTERFACE = 2  # of the schemas; the library tells its own
_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
# in a folder of its own: beside the Python files it would pass for a module
LIBRARY = Path(__file__).parent / "lib" / f"libcommon_kernels{_SUFFIX}"
SWITCH = "COMMON_KERNELS_NATIVE"


def _load() -> ctypes.CDLL | str:
    """Load the library and register its operators, or return the reason why that cannot be."""
    if os.environ.get(SWITCH) == "off":
        return f"switched off by {SWITCH}=off in the environment"
    if not LIBRARY.is_file():
        return (
            "this installation has no compiled library: install a wheel of this platform, "
            "or install from source where there is a C++ compiler"
        )
    name = f"torch_cpu{_SUFFIX}" if sys.platform == "win32" else f"libtorch_cpu{_SUFFIX}"
    try:
        library = ctypes.CDLL(str(LIBRARY))
        host = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))
    except OSError as error:
        return f"the compiled library cannot be loaded: {error}"
    if library.common_kernels_interface() != _INTERFACE:
        return "the compiled library is of another version of this package: install the package again"
    library.common_kernels_import.restype = library.common_kernels_instruction_set.restype = ctypes.c_char_p
    addresses: list[int | None] = []
    while (wanted := library.common_kernels_import(len(addresses))) is not None:
        function = getattr(host, wanted.decode(), None)
        if function is None:
            return f"torch {torch.__version__} lacks {wanted.decode()}: torch 2.10 or newer is needed"
        addresses.append(ctypes.cast(function, ctypes.c_void_p).value)
    if library.common_kernels_register((ctypes.c_void_p * len(addresses))(*addresses)):
        return "torch refused the operators of the compiled library"
    return library


_LOADED = _load()  # once, with the operators: a graph cannot load anything


def why_no_native() -> str | None:
    """Return why there are no compiled kernels, or ``None`` if there are."""
    return _LOADED if isinstance(_LOADED, str) else None


def not_auto_exporting() -> str | None:
    """Return why ``"auto"`` keeps the compiled kernels out of an exported graph, or ``None`` elsewhere."""
    return "an exported graph runs where torch's own operators do" if torch.compiler.is_exporting() else None


def instruction_sets() -> list[str]:
    """Return the instruction sets that the kernels can use on this processor, the fastest first."""
    names: list[str] = []
    if not isinstance(_LOADED, str):
        while (name := _LOADED.common_kernels_instruction_set(len(names))) is not None:
            names.append(name.decode())
    return names


@contextlib.contextmanager
def use_instruction_set(name: str) -> Generator[None, None, None]:
    """Compute with one of :func:`instruction_sets` inside a ``with`` block; for tests and measurements.

    Raises:
        ValueError: If the processor or the library does not have it.
    """
    offered = instruction_sets()
    if isinstance(_LOADED, str) or name not in offered:
        raise ValueError(f"name must be one of {offered}, got {name!r}")
    _LOADED.common_kernels_use(name.encode())
    try:
        yield
    finally:
        _LOADED.common_kernels_use(offered[0].encode())
