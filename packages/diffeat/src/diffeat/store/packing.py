# SPDX-License-Identifier: Apache-2.0
"""Extractors that can be pickled: hooks of the host libraries in a used pipeline cannot."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from diffeat.extractor import FeatureExtractor


@dataclass(frozen=True, slots=True)
class PackedExtractor:
    """An extractor as the files of its pipeline.

    Attributes:
        files: Content by path, as ``save_pretrained`` writes them.
        dtypes: Dtype of each component.
        device: Device of the denoiser; the CPU where this is not present.
        name: Name of the pipeline.
        revision: Revision of the pipeline.
    """

    files: dict[str, bytes]
    dtypes: dict[str, torch.dtype]
    device: str
    name: str
    revision: str | None

    def unpack(self) -> FeatureExtractor:
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
        is_there = self.device.startswith("cpu") or torch.cuda.is_available()
        return FeatureExtractor(
            pipeline.to(self.device if is_there else "cpu"), name=self.name, revision=self.revision
        )


def pack_extractor(extractor: FeatureExtractor) -> PackedExtractor:
    """Return an extractor as the files of its pipeline."""
    components: dict[str, Any] = extractor.pipeline.components
    dtypes = {
        name: next(part.parameters()).dtype
        for name, part in components.items()
        if isinstance(part, nn.Module) and any(True for _ in part.parameters())
    }
    with tempfile.TemporaryDirectory() as folder:
        extractor.pipeline.save_pretrained(folder)
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in Path(folder).rglob("*")
            if path.is_file()
        }
    return PackedExtractor(files, dtypes, str(extractor.device), extractor.name, extractor.revision)
