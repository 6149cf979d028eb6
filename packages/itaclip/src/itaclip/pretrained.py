# SPDX-License-Identifier: Apache-2.0
"""Models of transformers, with all their weights or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common_kernels.runtime.hub import quiet_libraries


def load_complete(kind: Any, name: str | Path, **options: Any) -> Any:
    """Load a model of transformers and refuse one whose weights are another model's.

    transformers gives what a file lacks random values and only logs it.

    Args:
        kind: Class of transformers with ``from_pretrained``.
        name: Folder or hub id.
        options: Further arguments of ``from_pretrained``.

    Raises:
        ValueError: If a parameter has no weights in the files, naming the first.
        OSError: As ``from_pretrained``, which raises others, too.
    """
    with quiet_libraries("transformers"):
        model, report = kind.from_pretrained(name, use_safetensors=True, output_loading_info=True, **options)
    own = {key for key, _ in model.named_parameters()}
    if missing := sorted(own & set(report["missing_keys"])):
        raise ValueError(
            f"its files lack {len(missing)} of {len(own)} weights of a {type(model).__name__}, "
            f"such as {missing[0]}"
        )
    return model


def reason_of(error: Exception) -> str:
    """Return what an error of a loading library says, as one clause."""
    text = " ".join(str(error).split()) or "no reason given"
    said = text.split(". ")[0].rstrip(".")
    # the text of a lookup is its key alone
    return f"{said} is missing in its configuration" if isinstance(error, KeyError) else said
