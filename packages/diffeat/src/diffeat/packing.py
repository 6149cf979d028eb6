# SPDX-License-Identifier: Apache-2.0
"""Pipelines that can be pickled: hooks of the host libraries in a used pipeline cannot."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from common_kernels.runtime.hub import resolve_device
from torch import nn


@dataclass(frozen=True, slots=True)
class PackedPipeline:
    """A pipeline as its files.

    Attributes:
        files: Content by path, as ``save_pretrained`` writes them.
        dtypes: Dtype of each component.
        device: Device of the denoiser; the CPU where this is not present.
    """

    files: dict[str, bytes]
    dtypes: dict[str, torch.dtype]
    device: str

    @classmethod
    def of(cls, pipeline: Any, device: torch.device) -> Self:
        """Return a pipeline of diffusers as its files."""
        components: dict[str, Any] = pipeline.components
        dtypes = {
            name: next(part.parameters()).dtype
            for name, part in components.items()
            if isinstance(part, nn.Module) and any(True for _ in part.parameters())
        }
        with tempfile.TemporaryDirectory() as folder:
            pipeline.save_pretrained(folder)
            found = (path for path in Path(folder).rglob("*") if path.is_file())
            files = {str(path.relative_to(folder)): path.read_bytes() for path in found}
        return cls(files, dtypes, str(device))

    def unpack(self) -> Any:
        """Load the pipeline from its files."""
        import diffusers

        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            for path, data in self.files.items():
                place = Path(folder, path)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            # the argument's name in every version below 1.0
            warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
            pipeline = cast("Any", diffusers).DiffusionPipeline.from_pretrained(
                folder, torch_dtype={**self.dtypes, "default": torch.float32}, use_safetensors=True
            )
        try:
            place = resolve_device(self.device)
        except ValueError:  # another machine may have no such device
            place = torch.device("cpu")
        return pipeline.to(place)
