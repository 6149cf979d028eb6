# SPDX-License-Identifier: Apache-2.0
"""What commands from image files to image files share: output names and the run."""

# no annotations from __future__: cyclopts would look up inherited ones in the module of the subclass
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common_kernels.runtime.batch import Job, plan_jobs, run_jobs
from common_kernels.runtime.cli import OnProgress, Output
from common_kernels.runtime.images.limits import WRITABLE

__all__ = ["ImageOutput", "Process", "run_on_images"]

Process = Callable[[Job, OnProgress], Mapping[str, object]]
"""Makes the files of one image and returns what to report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutput(Output):
    """What is written, and where.

    Attributes:
        suffix: Addition to the file names in an output folder.
    """

    suffix: str = ""

    def __post_init__(self) -> None:
        if Path(self.suffix).name != self.suffix:
            raise ValueError(f"--suffix must not name a folder, got {self.suffix!r}")

    @staticmethod
    def ending(format: str) -> str:
        """Return the suffix of a format.

        Raises:
            ValueError: If no such files are written.
        """
        ending = f".{format.lower().lstrip('.')}"
        if ending not in WRITABLE:
            names = ", ".join(sorted(each.lstrip(".") for each in WRITABLE))
            raise ValueError(f"--format must be one of {names}, got {format!r}")
        return ending

    def as_file(self, path: Path) -> dict[str, Path]:
        """Return the files that are written when the result becomes ``path``."""
        return {"image": path}

    def in_folder(self, relative: Path) -> dict[str, Path]:
        """Return the files that are written for an image at ``relative`` below an input folder."""
        raise NotImplementedError


def run_on_images(
    inputs: Sequence[str],
    output: ImageOutput,
    start: Callable[[str], Process],
    *,
    settings: Mapping[str, object],
    recursive: bool,
    device: str = "cpu",
    workers: int = 1,
    file_suffixes: Collection[str] = WRITABLE,
) -> int:
    """Find the images, do what was not done before, and report.

    Args:
        inputs: Files, folders or globs.
        output: What is written, and where.
        start: Called with the device of this process; returns the function that does one image.
        settings: Everything besides the input that a result depends on.
        recursive: Whether to search the folders below a folder.
        device: Device that was asked for.
        workers: Images in progress at once.
        file_suffixes: Suffixes that make ``output`` a file and no folder.

    Returns:
        Exit code.
    """
    jobs = plan_jobs(
        inputs,
        output.output,
        recursive=recursive,
        in_folder=output.in_folder,
        as_file=output.as_file,
        file_suffixes=file_suffixes,
    )
    report = run_jobs(
        jobs,
        start,
        settings=settings,
        device=device,
        workers=workers,
        overwrite=output.overwrite,
        json=output.json,
        debug=output.debug,
    )
    return report.exit_code
