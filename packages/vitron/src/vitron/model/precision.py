# SPDX-License-Identifier: Apache-2.0
"""In what numbers a model computes, and how few bits its weights are held in."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

__all__ = ["choose_precision"]

BITS = ("8bit", "4bit")
# small next to the language model, and what they give is measured in pixels: these keep their numbers
OWN_PARTS = ("projector", "region_encoder", "mask_head", "condition_heads", "lm_head")


def choose_precision(dtype: str, device: str) -> tuple[torch.dtype, dict[str, Any]]:
    """Return the numbers to compute in, and what transformers is told of weights in fewer bits.

    Args:
        dtype: ``auto``, float32 on a processor and bfloat16 on a GPU; a floating type of torch by name; or
            ``8bit`` or ``4bit``, by which the matrices of tower and language model are held in so many bits
            (bitsandbytes; LLM.int8 and NF4) while all else, and what is computed, is as by ``auto``.
        device: As torch names it.

    Raises:
        ImportError: If fewer bits are wanted and bitsandbytes is missing.
        ValueError: If the word is unknown.
    """
    plain = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    if dtype == "auto":
        return plain, {}
    if dtype not in BITS:
        chosen = getattr(torch, dtype, None)
        if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
            raise ValueError(
                f"dtype must be auto, a floating type of torch, as float32, 8bit or 4bit, got {dtype!r}"
            )
        return chosen, {}
    if find_spec("bitsandbytes") is None:
        raise ImportError(
            f"{dtype} needs bitsandbytes, which is not installed: pip install 'vitron[quantised]'"
        )
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_8bit=dtype == "8bit",
        load_in_4bit=dtype == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=plain,
        llm_int8_skip_modules=list(OWN_PARTS),
    )
    return plain, {"quantization_config": settings, "device_map": {"": device}}
