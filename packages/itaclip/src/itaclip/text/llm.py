# SPDX-License-Identifier: Apache-2.0
"""Auxiliary texts from a language model of transformers, run on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from common_kernels.runtime.files import write_json
from common_kernels.runtime.hub import (
    DType,
    ModelNotFoundError,
    find_model,
    quiet_libraries,
    resolve_device,
)
from torch import Tensor

from itaclip.pretrained import load_complete, reason_of
from itaclip.text.answers import Answer, Kind, Message, Task
from itaclip.text.store import default_cache, weights_fingerprint

_TEMPERATURE, _TOP_P = 0.6, 0.9


class LLMSource:
    """Asks a language model for definitions or synonyms, checks its answers and caches them.

    The model is loaded for the first answer that is not cached. Answers are greedy unless the task has a
    seed.
    Code that comes with a model is never run, and only safetensors weights are read.

    Args:
        model: Folder or hub id of a causal language model, or a ready model.
        tokenizer: Its tokenizer; needed with a ready model.
        task: Kind of texts and generation options; a kind alone takes the defaults.
        device: ``"auto"``, or a device of torch such as ``"cuda:1"``; a ready model stays on its device.
        dtype: Compute dtype; ``"auto"`` is that of the weights.
        cache: Folder of cached answers; ``"auto"`` is :func:`itaclip.text.default_cache`, ``None`` caches
            nothing.
        progress: Called with names done and names in total.

    Raises:
        ValueError: If a ready model comes without tokenizer.
    """

    def __init__(
        self,
        model: str | Path | torch.nn.Module,
        tokenizer: object | None = None,
        *,
        task: Task | Kind = "definitions",
        device: str | torch.device = "auto",
        dtype: DType = "auto",
        cache: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if isinstance(model, torch.nn.Module) and tokenizer is None:
            raise ValueError("tokenizer is missing: a ready model needs its own")
        self.model = model
        self.tokenizer = tokenizer
        self.task = task if isinstance(task, Task) else Task(kind=task)
        self.device = device
        self.dtype = dtype
        self.cache = default_cache() if cache == "auto" else None if cache is None else Path(cache)
        self.progress = progress

    def aux(self, names: Sequence[str]) -> list[str]:
        """Return one text for each name.

        Raises:
            ValueError: If the model gave no usable answer for a name.
            ModelNotFoundError: If the model cannot be loaded.
        """
        answers = self.answers(names)
        failed = [answer for answer in answers if answer.text is None]
        if failed:
            first = failed[0]
            raise ValueError(
                f"the model gave no usable text for {first.name!r} in {first.attempts} answers: {first.fault}"
                f" ({len(failed)} of {len(answers)} names failed)"
            )
        return [str(answer.text) for answer in answers]

    def answers(self, names: Sequence[str]) -> list[Answer]:
        """Return the answer for each name, usable or not.

        Raises:
            ModelNotFoundError: If the model cannot be loaded.
        """
        pending = {name: self.task.ask(name) for name in dict.fromkeys(names)}
        done: dict[str, Answer] = {}
        for attempt in range(1, self.task.retries + 2):
            raws = self._ask(list(pending.values()), len(done), len(done) + len(pending))
            again: dict[str, list[Message]] = {}
            for (name, messages), raw in zip(pending.items(), raws, strict=True):
                text = self.task.clean(raw, name)
                fault = self.task.fault(text, name) or _taken(text, name, done, names)
                usable = text if fault is None else None
                done[name] = Answer(name=name, text=usable, fault=fault, raw=raw, attempts=attempt)
                if fault is not None:
                    again[name] = self.task.ask_again(messages, raw, fault)
            if not again or attempt > self.task.retries:
                break
            pending = again
            for name in again:
                del done[name]
        return [done[name] for name in names]

    def _ask(self, conversations: list[list[Message]], done: int, total: int) -> list[str]:
        """Return the raw answers, from the cache where it has them."""
        answers: list[str | None] = [self._read_answer(messages) for messages in conversations]
        missing = [index for index, answer in enumerate(answers) if answer is None]
        done += len(conversations) - len(missing)
        for start in range(0, len(missing), self.task.batch_size):
            part = missing[start : start + self.task.batch_size]
            for index, answer in zip(part, self._generate([conversations[i] for i in part]), strict=True):
                answers[index] = answer
                self._write_answer(conversations[index], answer)
            if self.progress is not None:
                self.progress(done + start + len(part), total)
        return [answer or "" for answer in answers]

    def _file(self, messages: list[Message]) -> Path | None:
        if self.cache is None:
            return None
        parts = [self._model_id, messages, self.task.seed, self.task.max_new_tokens]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]
        return self.cache / "answers" / f"{key}.json"

    def _read_answer(self, messages: list[Message]) -> str | None:
        file = self._file(messages)
        try:
            answer = None if file is None else json.loads(file.read_text(encoding="utf-8"))["answer"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return answer if isinstance(answer, str) else None

    def _write_answer(self, messages: list[Message], answer: str) -> None:
        if (file := self._file(messages)) is not None:
            record = {
                "model": self._model_id,
                "messages": messages,
                "seed": self.task.seed,
                "max_new_tokens": self.task.max_new_tokens,
                "answer": answer,
            }
            write_json(file, record, sync=False)

    @cached_property
    def _model_id(self) -> str:
        """Return a name that changes with the model, without loading it."""
        if isinstance(self.model, torch.nn.Module):
            return weights_fingerprint(self.model)
        folder = Path(self.model)
        if not folder.is_dir():
            return str(self.model)
        files = sorted(file for file in folder.iterdir() if file.is_file())
        states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return f"{folder.resolve()} {hashlib.sha256(json.dumps(states).encode()).hexdigest()[:16]}"

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The model and its tokenizer."""
        if isinstance(self.model, torch.nn.Module):
            return self.model.eval(), self.tokenizer
        from transformers import AutoModelForCausalLM, AutoTokenizer

        name = str(find_model(self.model))
        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": Path(name).is_dir()}
        try:
            tokenizer = self.tokenizer or AutoTokenizer.from_pretrained(name, **options)
            model: Any = load_complete(AutoModelForCausalLM, name, dtype=self.dtype, **options)
        except (OSError, ValueError, KeyError) as error:
            raise ModelNotFoundError(
                f"language model {name!r} cannot be loaded: {reason_of(error)}; give the folder or "
                "hub id of a causal model of transformers with safetensors weights"
            ) from error
        return model.eval().to(resolve_device(self.device)), tokenizer

    @torch.no_grad()
    def _generate(self, conversations: list[list[Message]]) -> list[str]:
        from transformers import GenerationConfig

        model, tokenizer = self._loaded
        rows = [_token_ids(tokenizer, messages) for messages in conversations]
        pad = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
        ids, mask = _left_padded(rows, pad)  # (B, L) each
        ends = model.generation_config.eos_token_id
        settings: dict[str, Any] = {"do_sample": False}
        if self.task.seed is not None:
            settings = {"do_sample": True, "temperature": _TEMPERATURE, "top_p": _TOP_P}
        config = GenerationConfig(
            max_new_tokens=self.task.max_new_tokens,
            pad_token_id=pad,
            eos_token_id=tokenizer.eos_token_id if ends is None else ends,
            **settings,
        )
        device = next(model.parameters()).device
        # sampling draws from the global generator, whose state is restored
        others = [] if device.type == "cpu" else [device]
        with torch.random.fork_rng(devices=others, device_type=device.type):
            if self.task.seed is not None:
                torch.manual_seed(self._batch_seed(conversations))
            with quiet_libraries("transformers"):
                out = model.generate(
                    ids.to(device), attention_mask=mask.to(device), generation_config=config
                )  # (B, L + new)
        return [
            str(text) for text in tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        ]

    def _batch_seed(self, conversations: list[list[Message]]) -> int:
        text = json.dumps([self.task.seed, conversations])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _token_ids(tokenizer: Any, messages: list[Message]) -> list[int]:
    """Return the tokens of a conversation up to the answer."""
    if not getattr(tokenizer, "chat_template", None):
        text = "\n\n".join(message["content"] for message in messages)
        return list(tokenizer(text).input_ids)
    from jinja2.exceptions import TemplateError

    # as tokens: text that goes through the tokenizer again would get a second start token
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
    try:
        return list(tokenizer.apply_chat_template(messages, **options)["input_ids"])
    except TemplateError:  # some models have no system role
        system, user, *rest = messages
        first = {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}
        return list(tokenizer.apply_chat_template([first, *rest], **options)["input_ids"])


def _left_padded(rows: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask, ``(B, L)`` int64 each, padded on the left."""
    L = max(map(len, rows))
    ids = torch.tensor([[pad] * (L - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (L - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _taken(text: str, name: str, done: dict[str, Answer], names: Sequence[str]) -> str | None:
    """Return a fault if a text would make two classes alike."""
    key = text.casefold()
    others = [other for other in names if other != name]
    if any(other.casefold() == key for other in others):
        return f"{text!r} is the name of another thing"
    for answer in done.values():
        if answer.name != name and answer.text is not None and answer.text.casefold() == key:
            return f"{text!r} is already the answer for {answer.name!r}"
    return None
