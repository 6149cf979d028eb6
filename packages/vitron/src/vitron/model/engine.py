# SPDX-License-Identifier: Apache-2.0
"""The public model: messages, batches of messages, and the masks of their signals."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from common_kernels.runtime.hub import HubOptions, find_model, is_hub_id, read_config, resolve_device
from common_kernels.runtime.publishing import CardOptions, push_folder, write_card
from numpy.typing import NDArray
from transformers import AutoProcessor

from vitron.data.example import Example
from vitron.errors import UnsupportedRequestError
from vitron.model.assembly import attach
from vitron.model.batch import move
from vitron.model.batching import generate_messages
from vitron.model.checkpoints import is_adapter_folder, load_adapters, save_adapters, save_model
from vitron.model.encoding import ConversationEncoder
from vitron.model.generation import ModelGenerator, hidden_of
from vitron.model.hf.configuration import VitronConfig
from vitron.model.hf.modeling import VitronForConditionalGeneration, VitronOutput
from vitron.model.precision import choose_precision
from vitron.protocol import MODULES, ModuleRegistry
from vitron.protocol.media import Artefact
from vitron.protocol.sampling import SamplingParams
from vitron.session import Conversation
from vitron.shipped import SHIPPED, TRAINING_DOMAINS
from vitron.specialists.mask_head import MaskHeadSpecialist
from vitron.specialists.registry import SpecialistRegistry

__all__ = ["Vitron"]

_log = logging.getLogger(__name__)
_DOWNLOADED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
_HUB = tuple(HubOptions.__annotations__)
_CARD = CardOptions(
    title="A vision language model that calls modules, with Vitron's region encoder, signals and masks",
    library="vitron",
    paper="https://arxiv.org/abs/2412.19806",
    pipeline_tag="image-text-to-text",
    usage='from vitron import Vitron\n\nvitron = Vitron.from_pretrained("{repo_id}")',
    tags=("vision-language-model", "segmentation"),
)


class Vitron(ModelGenerator):
    """A model with its processor; generates the messages of a :class:`vitron.Conversation`.

    Args:
        model: Model.
        processor: Processor of the backbone.
        modules: Modules that may be called.

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
        processor: Any,
        *,
        modules: ModuleRegistry = MODULES,
    ) -> None:
        self.processor = processor
        config = cast("VitronConfig", model.config)
        super().__init__(model, ConversationEncoder(processor, config, modules=modules))

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

        A vision language model without heads gets new ones, with a warning: they have to be trained.

        Args:
            name_or_path: Name of a shipped model, folder, or hub id, of a Vitron model or of any of
                ``AutoModelForImageTextToText``; safetensors only.
            device: ``auto``, which is the accelerator if there is one, or a device of torch such as ``cpu``
                or ``cuda:1``; not used with a ``device_map``.
            dtype: ``auto``, a floating-point type of torch by name, ``8bit`` or ``4bit``; see
                :func:`vitron.model.precision.choose_precision`.
            **kwargs: ``revision``, ``token``, ``cache_dir``, ``local_files_only`` and ``force_download`` for
                the hub. Others are those of transformers, such as ``device_map``, ``attn_implementation``, or
                a ``quantization_config`` of another kind.

        Raises:
            ImportError: If a quantised dtype is asked for and bitsandbytes is missing.
            ModelNotFoundError: If there is no such model.
            ValueError: If there is no such device or dtype, or the model reads no images.
        """
        target = resolve_device(device)
        chosen, quantisation = choose_precision(dtype, target)
        hub = cast("HubOptions", {name: kwargs.pop(name) for name in _HUB if name in kwargs})
        kwargs = {"dtype": chosen, "use_safetensors": True} | quantisation | kwargs
        folder = find_model(name_or_path, shipped=SHIPPED, download=_DOWNLOADED, **hub)
        if is_adapter_folder(folder):
            model, processor = load_adapters(folder, **kwargs)
        elif read_config(folder).get("model_type") == VitronConfig.model_type:
            model = cast("Any", VitronForConditionalGeneration).from_pretrained(folder, **kwargs)
            processor = AutoProcessor.from_pretrained(folder)
        else:
            model, processor = attach(folder, **kwargs)
            if not Path(name_or_path).is_dir():
                model.config.base_model = str(name_or_path)  # not the place of its files on this machine
            _log.warning(
                "%s has no region encoder, signals and masks yet: they are new, and untrained until you run "
                "`vitron fit`",
                name_or_path,
            )
        if not {"quantization_config", "device_map"} & set(kwargs):
            cast("Any", model).to(target)
        if str(name_or_path) in SHIPPED.names():
            model.config.training_domain = TRAINING_DOMAINS.get(str(name_or_path))
        return cls(model, processor)

    @property
    def notice(self) -> str | None:
        """What users should know before they start; ``None`` for a model that was trained on photographs.

        A model that never saw a photograph answers and marks all the same, and mostly wrongly. No rule tells
        photographs from drawn scenes surely enough to say so for single images.
        """
        domain = cast("VitronConfig", self.model.config).training_domain
        if domain is None:
            return None
        return (
            f"this model was trained on {domain} alone: what it says, marks and follows in photographs is "
            "mostly wrong. For photographs give a larger --model, and set up specialists such as SAM 3 "
            "(VITRON_SAM3_MODEL), SAM (VITRON_SAM_MODEL) or Grounding DINO (VITRON_GROUNDING_DINO_MODEL)"
        )

    def save_pretrained(self, folder: Path | str, *, adapters_only: bool = False) -> None:
        """Write configuration, weights (safetensors) and processor.

        Args:
            folder: Folder.
            adapters_only: Write what differs from the base model alone; see
                :func:`vitron.model.checkpoints.save_adapters`.
        """
        if adapters_only:
            save_adapters(self.model, self.processor, folder)
            return
        save_model(self.model, self.processor, folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        adapters_only: bool = False,
        metrics: Mapping[str, float | str] | None = None,
        token: str | bool | None = None,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload model",
    ) -> str:
        """Upload what :meth:`save_pretrained` writes to the hub, with a model card.

        Args:
            repo_id: Such as ``"owner/name"``.
            adapters_only: Upload what differs from the base model alone.
            metrics: Figures of the card by their names, with data set and unit.
            token: Access token of the hub; ``None`` takes the stored one.
            private: Whether a new repository is private; ``None`` for what the owner's settings say.
            revision: Branch.
            commit_message: Message of the commit.

        Returns:
            Address of the commit.
        """
        base = cast("VitronConfig", self.model.config).base_model
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, adapters_only=adapters_only)
            base = base if base is not None and is_hub_id(base) else None
            write_card(folder, _CARD, repo_id=repo_id, base_model=base, metrics=metrics)
            return push_folder(
                folder,
                repo_id,
                token=token,
                private=private,
                revision=revision,
                commit_message=commit_message,
            )

    def specialists(self) -> SpecialistRegistry:
        """Return all installed specialists and the model's own mask head."""
        registry = SpecialistRegistry(locate=self.locate)
        registry.register("mask-head", lambda: MaskHeadSpecialist(self.mask), origin="vitron")
        return registry.discover()

    def conversation(self, specialists: SpecialistRegistry | None = None) -> Conversation:
        """Start a conversation.

        Args:
            specialists: Specialists that run calls; by default :meth:`specialists`.
        """
        registry = self.specialists() if specialists is None else specialists
        return Conversation(self, specialists=registry, modules=self.modules)

    def generate_batch(
        self, examples: Sequence[Example], *, max_new_tokens: int = 128, constrained: bool = False
    ) -> list[str]:
        """Generate the last messages of many conversations at once, greedily; existing ones are ignored.

        Returns:
            Raw text with tags and signals.
        """
        sampling = SamplingParams(max_new_tokens=max_new_tokens, constrained=constrained)
        return generate_messages(self, [_without_answer(each) for each in examples], sampling)

    @torch.no_grad()
    def signals_of(self, examples: Sequence[Example]) -> list[list[NDArray[np.float32]]]:
        """Return the signal embeddings of all calls of whole conversations, ``(N, C)`` each."""
        batch = self.encoder(examples).to(self.device)
        output: VitronOutput = self.model(**batch.inputs(), use_cache=False)
        signals, rows = self.model.signals(hidden_of(output), batch.input_ids)
        out: list[list[NDArray[np.float32]]] = [[] for _ in examples]
        for row, signal in zip(rows.tolist(), signals.float().cpu().numpy(), strict=True):
            out[row].append(signal)
        return out

    @torch.no_grad()
    def mask(self, signal: NDArray[np.float32], module: str, artefact: Artefact) -> NDArray[np.bool_]:
        """Return the masks that the signals of a call describe.

        Args:
            signal: Signal embeddings of the call, ``(N, C)``.
            module: Name of the called module.
            artefact: Image or video.

        Returns:
            Masks of all frames, ``(T, H, W)``.

        Raises:
            UnsupportedRequestError: If the mask head does not serve this module.
        """
        if module not in self.model.mask_head.queries:
            raise UnsupportedRequestError(f"the mask head does not serve {module}")
        media, masks = self.encoder.media, list[NDArray[np.bool_]]()
        count = self.model.config.num_frames or 8
        for start in range(0, artefact.num_frames, count):
            kind = "image" if artefact.kind == "image" else "video"
            visuals = media.visuals(kind, artefact.frames[start : start + count], fps=artefact.fps)
            size, inputs = visuals[0].size, move(self.encoder.visual_inputs(visuals), self.device)
            features = self.model.frame_features(inputs)
            frames = range(len(features.maps))
            signals = torch.from_numpy(signal).to(self.device).expand(len(frames), -1, -1)
            for group in self.model.mask_groups(signals, [module] * len(frames), frames, features):
                masks.append(media.to_image(group.logits, size))
        return np.concatenate(masks)

    def locate(self, module: str, image: Artefact, signal: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """Return the mask ``(H, W)`` that the signals of a call describe; ``None`` if it is empty.

        A module that the mask head does not serve, such as ``image_to_video``, is read as an edit of the
        image: signals mean an object in the same way in all modules.

        Args:
            module: Name of the called module.
            image: Image or video; the first frame of a video is used.
            signal: Signal embeddings of the call, ``(N, C)``.
        """
        queries = self.model.mask_head.queries
        served = module if module in queries else "image_editing"
        if served not in queries:
            return None
        found = self.mask(signal, served, Artefact("image", image.frames[0]))[0]
        return found if found.any() else None


def _without_answer(example: Example) -> Example:
    messages = example.messages
    if messages and messages[-1].role == "assistant":
        messages = messages[:-1]
    return replace(example, task="", messages=messages, masks={}, mask_media={}, conditions={})
