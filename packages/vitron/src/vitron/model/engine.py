# SPDX-License-Identifier: Apache-2.0
"""The model at work: replies as they are written, many at once, and the masks that their signals ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from vitron.data.example import Example
from vitron.errors import UnsupportedRequestError
from vitron.model.configuration import VitronConfig
from vitron.model.decoding import CallLogitsProcessor, Vocabulary
from vitron.model.generation import Writing
from vitron.model.modeling import VitronForConditionalGeneration, VitronOutput
from vitron.model.precision import choose_precision
from vitron.model.processing import VitronProcessor
from vitron.protocol import MODULES, ModuleRegistry
from vitron.protocol.media import Artefact
from vitron.protocol.messages import Message, MessageChunk, PlacedRegion, SamplingParams
from vitron.session import Conversation
from vitron.shipped import model_folder
from vitron.specialists.mask_head import MaskHeadSpecialist
from vitron.specialists.registry import SpecialistRegistry

__all__ = ["Vitron"]


class Vitron:
    """A model with its processor; generates the messages of a :class:`vitron.Conversation`.

    Args:
        model: The model.
        processor: Its tokenizer and pictures.
        modules: What may be called.

    Example:
        >>> vitron = Vitron.from_pretrained("vitron-tiny")  # doctest: +SKIP
        >>> conversation = vitron.conversation()  # doctest: +SKIP
        >>> conversation.add_user_message("segment the red star", media=[image])  # doctest: +SKIP
        >>> for event in conversation.generate():  # doctest: +SKIP
        ...     print(event)
    """

    def __init__(
        self,
        model: VitronForConditionalGeneration,
        processor: VitronProcessor,
        *,
        modules: ModuleRegistry = MODULES,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.modules = modules
        outlet: Any = model.get_output_embeddings()
        rows = int(outlet.weight.shape[0])
        self.vocabulary = Vocabulary(processor, rows)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "vitron-tiny",
        *,
        device: str = "auto",
        dtype: str = "auto",
        **kwargs: Any,
    ) -> Vitron:
        """Load a model.

        Args:
            name_or_path: A name of :func:`vitron.shipped.list_models`, a folder, or a name on a hub. Weights
                are read from safetensors alone.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:n``.
            dtype: ``auto``, a floating type of torch by name, ``8bit`` or ``4bit``; see
                :func:`vitron.model.precision.choose_precision`.
            **kwargs: To transformers, as a ``quantization_config`` of another kind.

        Raises:
            ImportError: If fewer bits are wanted and bitsandbytes is missing.
            ValueError: If there is no such model, or no such dtype.
        """
        place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        chosen, fewer_bits = choose_precision(dtype, place)
        kwargs = fewer_bits | kwargs
        folder = model_folder(name_or_path)
        config = VitronConfig.from_pretrained(folder)
        model: Any = VitronForConditionalGeneration.from_pretrained(
            folder, config=config, dtype=chosen, use_safetensors=True, **kwargs
        )
        if "quantization_config" not in kwargs:
            model.to(torch.device(place))
        return cls(model, VitronProcessor.from_pretrained(folder, config))

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    def save_pretrained(self, folder: Path | str) -> None:
        """Write configuration, weights (safetensors) and tokenizer."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def specialists(self) -> SpecialistRegistry:
        """Return all that are installed, after the model's own mask head."""
        registry = SpecialistRegistry(prefer=("mask-head",), locate=self.locate)
        registry.register("mask-head", lambda: MaskHeadSpecialist(self.mask), origin="vitron")
        return registry.discover()

    def conversation(self, specialists: SpecialistRegistry | None = None) -> Conversation:
        """Start a conversation.

        Args:
            specialists: Specialists that run calls; by default :meth:`specialists`.
        """
        registry = self.specialists() if specialists is None else specialists
        return Conversation(self, specialists=registry, modules=self.modules)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return how many tokens a talk takes; a clip counts as a picture."""
        shown = [part.media for message in messages for part in message.content if part.type == "media"]
        return len(self.processor.tokens(messages, [1] * (max(shown, default=-1) + 1))[0])

    # -- one reply

    @torch.inference_mode()
    def stream(
        self,
        messages: Sequence[Message],
        media: Sequence[Artefact],
        regions: Sequence[PlacedRegion],
        sampling: SamplingParams,
    ) -> Iterator[MessageChunk]:
        """Write a reply token by token with a cache; see :class:`vitron.protocol.messages.MessageGenerator`.

        Where the grammar leaves one choice, as within a set of signals, tokens are read together with the
        one before them in one pass.
        """
        cache, found = self.begin(messages, media, regions)
        writing = Writing(self, sampling)
        while tokens := writing.choose(logits_of(found)[0, -1]):
            ids = torch.tensor([tokens], device=self.device)
            found = self._step(cache, input_ids=ids)
            for token, hidden in zip(tokens, hidden_of(found)[0], strict=True):
                piece = writing.take(token, hidden)
                if piece is not None:
                    yield piece

    def begin(
        self, messages: Sequence[Message], media: Sequence[Artefact], regions: Sequence[PlacedRegion]
    ) -> tuple[DynamicCache, VitronOutput]:
        """Read a talk; return the cache and what the model says behind it."""
        example = Example(task="", messages=tuple(messages), media=tuple(media), regions=tuple(regions))
        cache = DynamicCache()
        return cache, self._step(cache, **self.processor([example]).to(self.device).inputs())

    def _step(self, cache: DynamicCache, **inputs: Tensor) -> VitronOutput:
        # one dialogue has no padding: without a mask the language model counts places from its cache
        return self.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)

    def signal(self, hidden: Tensor) -> NDArray[np.float32]:
        """Return the signal embeddings ``(N, C)`` of the last states ``(N, C)`` of a set of signal tokens."""
        ids = torch.tensor([self.vocabulary.signals], device=self.device)
        found, _ = self.model.signals(hidden[None], ids)
        return found[0].float().cpu().numpy()

    # -- many replies

    @torch.no_grad()
    def generate_batch(
        self, examples: Sequence[Example], *, max_new_tokens: int = 128, constrained: bool = False
    ) -> list[str]:
        """Write replies to many dialogues at once, greedily; their last replies, if there, are left out.

        Returns:
            Raw replies with tags and signals.
        """
        asked = [_asked(example) for example in examples]
        batch = self.processor(asked, left=True).to(self.device)
        length = batch.input_ids.shape[1]
        processors = [CallLogitsProcessor(self.vocabulary, length, self.modules)] if constrained else None
        model: Any = self.model  # whose mixin pyright cannot bind
        ids = model.generate(
            **batch.inputs(),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self.processor.end_id,
            pad_token_id=self.processor.pad_id,
            logits_processor=processors,
        )
        return [self.processor.decode(row[length:].tolist()) for row in ids]

    @torch.no_grad()
    def signals_of(self, examples: Sequence[Example]) -> list[list[NDArray[np.float32]]]:
        """Return the signal embeddings of the calls of whole dialogues, ``(N, C)`` each, read at once."""
        batch = self.processor(examples).to(self.device)
        found: VitronOutput = self.model(**batch.inputs(), use_cache=False)
        signals, rows = self.model.signals(hidden_of(found), batch.input_ids)
        out: list[list[NDArray[np.float32]]] = [[] for _ in examples]
        for row, signal in zip(rows.tolist(), signals.float().cpu().numpy(), strict=True):
            out[row].append(signal)
        return out

    @torch.no_grad()
    def mask(self, signal: NDArray[np.float32], module: str, artefact: Artefact) -> NDArray[np.bool_]:
        """Return the mask that a call's signals ask for.

        Args:
            signal: ``(N, C)``.
            module: Name of the called module.
            artefact: Picture or clip.

        Returns:
            ``(T, H, W)``, of every frame.

        Raises:
            UnsupportedRequestError: If the mask head does not serve this module.
        """
        if module not in self.model.mask_head.queries:
            raise UnsupportedRequestError(f"the mask head does not serve {module}")
        masks = list[NDArray[np.bool_]]()
        count = self.processor.config.num_frames
        for start in range(0, artefact.num_frames, count):
            frames = self.processor.square(artefact.frames[start : start + count])
            images = self.processor.normalise(frames).to(self.device, self.model.dtype)
            asked = torch.from_numpy(signal).to(images).expand(len(images), -1, -1)
            logits = self.model.mask_head(asked, [module] * len(images), self.model.look(images), images)
            masks.append(self.processor.unsquare(logits, artefact.size))
        return np.concatenate(masks)

    def locate(self, module: str, picture: Artefact, signal: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """Return what a call's signals mean in a picture, ``(H, W)``, or ``None`` if that is nothing.

        Args:
            module: Name of the called module.
            picture: What it works on; of a clip, the first frame.
            signal: ``(N, C)``.
        """
        if module not in self.model.mask_head.queries:
            return None
        found = self.mask(signal, module, Artefact("image", picture.frames[0]))[0]
        return found if found.any() else None


def _asked(example: Example) -> Example:
    messages = example.messages
    if messages and messages[-1].role == "assistant":
        messages = messages[:-1]
    return Example(task=example.task, messages=messages, media=example.media, regions=example.regions)


def logits_of(found: VitronOutput) -> Tensor:
    """Return the logits, ``(B, L, V)``."""
    if found.logits is None:
        raise RuntimeError("the model gave no logits")
    return found.logits


def hidden_of(found: VitronOutput) -> Tensor:
    """Return the last hidden states, ``(B, L, C)``."""
    if found.hidden is None:
        raise RuntimeError("the model gave no hidden states")
    return found.hidden
