# SPDX-License-Identifier: Apache-2.0
"""A CLIP model of transformers for the scores that compare images with text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common_kernels.runtime.hub import find_model
from PIL import Image

from vitron.evaluation.images import Embed, Pixels, Vector

__all__ = ["load_embed"]


def load_embed(model: str | Path, *, device: str = "cpu") -> Embed:
    """Load a CLIP model.

    Args:
        model: Folder or hub id; weights must be safetensors.
        device: Device of the model.

    Raises:
        ImportError: If transformers is not installed.
        ModelNotFoundError: If there is no such model.
    """
    try:
        import torch
        from transformers import CLIPModel, CLIPProcessor
    except ImportError as error:
        raise ImportError('CLIP scores need transformers: pip install "vitron[specialists]"') from error
    place = find_model(model)
    net: Any = CLIPModel.from_pretrained(place, use_safetensors=True)
    net = net.to(device).eval()
    processor: Any = CLIPProcessor.from_pretrained(place)

    def vector(output: Any) -> Vector:
        found = getattr(output, "pooler_output", output)
        return np.asarray(found[0].float().cpu(), dtype=np.float64)

    @torch.inference_mode()
    def image(pixels: Pixels) -> Vector:
        inputs = processor(images=Image.fromarray(pixels), return_tensors="pt").to(device)
        return vector(net.get_image_features(**inputs))

    @torch.inference_mode()
    def text(prompt: str) -> Vector:
        inputs = processor(text=[prompt], return_tensors="pt", truncation=True, padding=True).to(device)
        return vector(net.get_text_features(**inputs))

    return Embed(image, text)
