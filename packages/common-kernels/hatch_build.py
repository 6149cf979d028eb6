# SPDX-License-Identifier: Apache-2.0
"""Build hook: the compiled CPU kernels beside the Python files, where there is a C++ compiler.

They need neither torch nor its headers to be built. ``COMMON_KERNELS_NATIVE`` in the environment decides:
``auto`` (the default) leaves them out with a warning if they cannot be built, ``require`` fails then, ``off``
builds the wheel that is pure Python.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
SOURCES = ROOT / "csrc"
SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
NAME = f"libcommon_kernels{SUFFIX}"
FLAGS = [
    "-std=c++17",
    "-O3",
    "-fvisibility=hidden",
    # neither changes a result: no code reads errno or the floating-point traps
    "-fno-math-errno",
    "-fno-trapping-math",
    *([] if sys.platform == "win32" else ["-fPIC"]),
]
AVX512 = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mprefer-vector-width=512"
# beside the processor's own baseline (NEON on arm64); the best that it has is chosen at run time
X86 = {"avx2": "-mavx2 -mfma", "avx512": AVX512}


class CannotBuildError(Exception):
    """There is no compiler, or it refuses."""


class NativeHook(BuildHookInterface):  # pyright: ignore[reportMissingTypeArgument]
    """Adds the library to wheels; an editable installation gets it in its source folder."""

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before the files of the wheel are collected."""
        mode = os.environ.get("COMMON_KERNELS_NATIVE", "auto")
        if mode not in ("auto", "require", "off"):
            raise ValueError(f"COMMON_KERNELS_NATIVE must be auto, require or off, got {mode!r}")
        if mode == "off":
            return
        self._folder = tempfile.TemporaryDirectory()
        built = Path(self._folder.name) / NAME
        try:
            build(built)
        except CannotBuildError as reason:
            self._folder.cleanup()
            if mode == "require":
                raise
            self.app.display_warning(f"without compiled CPU kernels: {reason}")
            return
        if version == "editable":
            target = ROOT / "src" / "common_kernels" / "lib" / NAME
            target.parent.mkdir(exist_ok=True)
            # a process may have the old one open
            shutil.copy(built, target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)
        else:
            build_data["force_include"][str(built)] = f"common_kernels/lib/{NAME}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform_tag()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the library once the wheel holds it."""
        if self._folder is not None:
            self._folder.cleanup()


def platform_tag() -> str:
    """Return the tag of the machine that this runs on; repair tools turn it into a portable one."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def build(target: Path) -> None:
    """Compile and link the library.

    Raises:
        CannotBuildError: If no compiler is found or one step fails.
    """
    compiler = find_compiler()
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    shared = [*compiler, *FLAGS, *(["-DCOMMON_KERNELS_X86"] if is_x86 else [])]
    variants = {"generic": "", **(X86 if is_x86 else {})}
    steps = {"library": [*shared, "-c", str(SOURCES / "library.cpp")]}
    for name, flags in variants.items():
        defines = [f"-DCOMMON_KERNELS_TABLE=kernels_{name}", f"-DCOMMON_KERNELS_NAME={name}"]
        steps[name] = [*shared, *flags.split(), *defines, "-c", str(SOURCES / "kernels.cpp")]
    objects = [str(target.with_name(f"{name}.o")) for name in steps]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, ([*step, "-o", out] for step, out in zip(steps.values(), objects, strict=True))))
    run([*compiler, "-shared", *objects, "-o", str(target)])


def find_compiler() -> list[str]:
    """Return the command of ``CXX``, or of the first compiler on the path."""
    if os.environ.get("CXX"):
        return os.environ["CXX"].split()
    found = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if found is None:
        raise CannotBuildError("no C++ compiler (g++ 12 or clang 15, or newer) on the path")
    return [found]


def run(command: list[str]) -> None:
    """Run one step of the build."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CannotBuildError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        raise CannotBuildError(f"{' '.join(command)}\n{done.stderr[-2000:]}")
