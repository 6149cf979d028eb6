# SPDX-License-Identifier: Apache-2.0
"""Compute dtype of a model, and quantisation of its weights."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

__all__ = ["choose_precision"]

BITS = ("8bit", "4bit")
# small next to the language model, and their output is measured in pixels: not quantised
UNQUANTISED = (
    "multi_modal_projector",
    "merger",
    "connector",
    "region_encoder",
    "mask_head",
    "condition_heads",
    "lm_head",
)


def choose_precision(dtype: str, device: torch.device | str) -> tuple[torch.dtype, dict[str, Any]]:
    """Return the compute dtype, and the arguments of transformers for quantised weights.

    Args:
        dtype: ``auto``, float32 on CPU and bfloat16 on CUDA; a floating-point type of torch by name; or
            ``8bit`` or ``4bit``: matrices of tower and language model quantised by bitsandbytes (LLM.int8 and
            NF4), all else as by ``auto``.
        device: Device of the model.

    Raises:
        ImportError: If a quantised dtype is asked for and bitsandbytes is missing.
        ValueError: If the dtype is unknown.
    """
    plain = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    if dtype == "auto":
        return plain, {}
    if dtype not in BITS:
        chosen = getattr(torch, dtype, None)
        if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
            raise ValueError(
                f"dtype must be auto, 8bit, 4bit or a floating-point type such as float32, got {dtype!r}"
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
        # as parts of a name: backbones put them at any depth
        llm_int8_skip_modules=[rf"(?:.*\.)?{name}" for name in UNQUANTISED],
    )
    return plain, {"quantization_config": settings, "device_map": {"": str(device)}}
