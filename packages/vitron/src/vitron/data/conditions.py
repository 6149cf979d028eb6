# SPDX-License-Identifier: Apache-2.0
"""Prompt embeddings of generators' text encoders, stored with a data set: what condition heads learn."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common_kernels.runtime.files import make_folder, write_bytes, write_json
from common_kernels.runtime.fingerprint import digest_model
from filelock import FileLock
from numpy.typing import NDArray

from vitron.data.files import data_file, read_samples
from vitron.data.schema import Sample
from vitron.errors import DataError
from vitron.protocol import MODULES
from vitron.protocol.contract import Invocation

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["StoredConditions", "calls_of", "compute_conditions", "prompt_of", "read_conditions"]

FOLDER, RECORD, LOCK = "conditions", "record.json", ".lock"
_PER_FILE = 256  # 77 vectors of 768 in half precision: 30 MB


def prompt_of(call: Invocation) -> str:
    """Return the prompt of a call: the text of its instructions, as specialists read it."""
    texts = (" ".join(each.text.split()) for each in call.instruction)
    return ", ".join(text for text in texts if text)


@dataclass(frozen=True)
class StoredConditions:
    """Prompt embeddings of one module.

    Attributes:
        folder: Folder of the files.
        pipeline: Folder or hub id of the pipeline.
        digest: Digest of the pipeline.
        num_vectors: Vectors of a prompt.
        width: Channels of a vector.
        files: File of each prompt, by the prompt's digest.
    """

    folder: Path
    pipeline: str
    digest: str
    num_vectors: int
    width: int
    files: dict[str, str]

    def __contains__(self, prompt: object) -> bool:
        return isinstance(prompt, str) and _key(prompt) in self.files

    def __getitem__(self, prompt: str) -> NDArray[np.float32]:
        """Return the embeddings of a prompt, ``(num_vectors, width)``.

        Raises:
            KeyError: If they were not computed.
            DataError: If their file is missing or damaged.
        """
        from safetensors import SafetensorError

        key = _key(prompt)
        file = self.files[key]
        try:
            if file not in self._open:
                from safetensors import safe_open

                self._open[file] = safe_open(self.folder / file, "np")
            return self._open[file].get_tensor(key).astype(np.float32)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{self.folder / file} cannot be read: compute the conditions again") from error

    @cached_property
    def _open(self) -> dict[str, Any]:
        return {}


def read_conditions(source: Path) -> dict[str, StoredConditions]:
    """Return the conditions that are stored with a data set, by module.

    Args:
        source: Folder of the data set, or its file of lines.

    Raises:
        DataError: If a record cannot be read.
    """
    folder = data_file(source).parent / FOLDER
    found = dict[str, StoredConditions]()
    for record in sorted(folder.glob(f"*/{RECORD}")):
        try:
            found[record.parent.name] = StoredConditions(
                folder=record.parent, **json.loads(record.read_text("utf-8"))
            )
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{record} is not a record of conditions: compute them again") from error
    return found


def compute_conditions(
    source: Path,
    module: str,
    pipeline: str | Path,
    *,
    device: str = "auto",
    batch_size: int = 16,
    overwrite: bool = False,
    track: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> StoredConditions:
    """Compute the prompt embeddings of all calls of a module, and store them with the data set.

    Those that the same pipeline computed before are kept, so that a stopped computation resumes. Of several
    processes that ask for the same ones, the first computes and the others wait.

    Args:
        source: Folder of the data set, or its file of lines.
        module: Name of the module, such as ``text_to_image``.
        pipeline: Folder or hub id of a pipeline of diffusers with ``encode_prompt``.
        device: Device of the text encoder.
        batch_size: Prompts per batch.
        overwrite: Compute all again.
        track: Function that iterates over the files to compute, such as a progress bar.

    Returns:
        The stored conditions.

    Raises:
        DataError: If no call of the data names the module, or the pipeline gives no prompt embeddings.
        ValueError: If there is no such module.
    """
    known_module = MODULES.resolve(module)
    if known_module is None:
        raise ValueError(f"module must be one of {', '.join(each.name for each in MODULES)}, got {module!r}")
    place = data_file(source).parent / FOLDER / known_module.name
    prompts, digest = _prompts(source, known_module.name), digest_model(pipeline)
    known, missing = _stored(source, place.name, prompts, digest, overwrite=overwrite)
    if known is not None and not missing:
        return known
    make_folder(place.parent)
    with FileLock(place.parent / LOCK):  # processes that torchrun started ask for the same ones
        known, missing = _stored(source, place.name, prompts, digest, overwrite=overwrite)
        if known is not None and not missing:
            return known
        encode = _encoder(pipeline, device)
        if known is None and place.exists():  # not before the pipeline was found
            shutil.rmtree(place)
        make_folder(place)
        record: dict[str, Any] = {"pipeline": str(pipeline), "digest": digest}
        for block in track(_blocks(missing, _PER_FILE)):
            found = np.concatenate([encode(part) for part in _blocks(block, batch_size)])
            known = _add(place, record, known, dict(zip(map(_key, block), found, strict=True)))
    assert known is not None
    return known


def _stored(
    source: Path, name: str, prompts: Sequence[str], digest: str, *, overwrite: bool
) -> tuple[StoredConditions | None, list[str]]:
    """Return what a pipeline computed before, if that is to be kept, and the prompts that are missing."""
    known = read_conditions(source).get(name)
    if known is not None and (known.digest != digest or overwrite):
        known = None
    return known, [prompt for prompt in prompts if known is None or prompt not in known]


def _add(
    place: Path,
    record: Mapping[str, Any],
    known: StoredConditions | None,
    found: dict[str, NDArray[np.float16]],
) -> StoredConditions:
    """Write the embeddings of prompts as a further file, and record it."""
    (shape,) = {each.shape for each in found.values()}
    if known is not None and shape != (known.num_vectors, known.width):
        wanted = (known.num_vectors, known.width)
        raise DataError(f"{record['pipeline']} gave embeddings of {shape} and of {wanted}")
    files = {} if known is None else dict(known.files)
    file = f"{len(set(files.values())):06d}.safetensors"
    _write(place / file, found)
    files |= dict.fromkeys(found, file)
    facts: dict[str, Any] = {**record, "num_vectors": shape[0], "width": shape[1], "files": files}
    write_json(place / RECORD, facts)
    return StoredConditions(folder=place, **facts)


def _prompts(source: Path, module: str) -> list[str]:
    calls = (
        call
        for _, sample in read_samples(source)
        for call in calls_of(sample)
        if call.module == module and prompt_of(call)
    )
    prompts = list(dict.fromkeys(prompt_of(call) for call in calls))
    if not prompts:
        raise DataError(f"{source} holds no call of {module} with a text")
    return prompts


def calls_of(sample: Sample) -> list[Invocation]:
    """Return all calls of a conversation, in order."""
    return [call for message in sample.messages for call in message.calls]


def _blocks(items: Sequence[str], size: int) -> list[Sequence[str]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _key(prompt: str) -> str:
    return hashlib.blake2b(prompt.encode(), digest_size=16).hexdigest()


def _write(path: Path, tensors: dict[str, NDArray[np.float16]]) -> None:
    from safetensors.numpy import save

    write_bytes(path, save(tensors))


def _encoder(pipeline: str | Path, device: str) -> Callable[[Sequence[str]], NDArray[np.float16]]:
    """Return a function from prompts to embeddings ``(B, n, C)``; only the text encoders are loaded."""
    import torch
    from common_kernels.runtime.hub import find_model, quiet_libraries, resolve_device

    target, pipeline = resolve_device(device), find_model(pipeline, index_file="model_index.json")
    with quiet_libraries("diffusers", "transformers"):
        from diffusers.pipelines.pipeline_utils import DiffusionPipeline

        stored: Any = DiffusionPipeline.load_config(pipeline)
        unused = [
            name
            for name, value in stored.items()
            if isinstance(value, list) and not name.startswith(("text_encoder", "tokenizer", "scheduler"))
        ]
        pipe = DiffusionPipeline.from_pretrained(pipeline, use_safetensors=True, **dict.fromkeys(unused))
        pipe = pipe.to(target)
    if not hasattr(pipe, "encode_prompt"):
        raise DataError(f"{pipeline} is a {type(pipe).__name__}, which has no prompt embeddings")
    known = inspect.signature(pipe.encode_prompt).parameters
    given = {
        "device": target,
        "num_images_per_prompt": 1,
        "num_videos_per_prompt": 1,
        "do_classifier_free_guidance": False,
    }
    settings = {name: value for name, value in given.items() if name in known}

    def encode(prompts: Sequence[str]) -> NDArray[np.float16]:
        with torch.inference_mode():
            found = pipe.encode_prompt(prompt=list(prompts), **settings)
        embeddings: Tensor = found[0] if isinstance(found, tuple) else found
        return embeddings.float().cpu().numpy().astype(np.float16)

    return encode
