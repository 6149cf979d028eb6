# SPDX-License-Identifier: Apache-2.0
"""The modules that a message may call: names, letters, verbs and arguments.

The letters A to G and their tasks are those of the published code; R, all verbs and all arguments are new.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vitron.protocol.contract import ArgValue, Instruction, MediaKind

ArgumentKind = Literal["integer", "name", "size", "text"]

_PATTERNS: dict[ArgumentKind, str] = {
    "integer": r"-?[0-9]{1,9}",
    "name": r"(?:img|vid|mask)_[1-9][0-9]{0,5}",
    "size": r"[1-9][0-9]{0,4}x[1-9][0-9]{0,4}",
    "text": r"\S(?:.*\S)?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """A further argument of a module.

    Attributes:
        name: Name of the argument, such as ``seed``.
        kind: ``integer``; ``name`` of an image, video or mask of this conversation; ``size`` as ``64x48``;
            or any ``text``.
        summary: One line.
    """

    name: str
    kind: ArgumentKind
    summary: str

    def read(self, text: str) -> ArgValue | None:
        """Return the value of a text, or ``None`` if it has none."""
        if not re.fullmatch(_PATTERNS[self.kind], text, re.DOTALL):
            return None
        return int(text) if self.kind == "integer" else text

    def accepts(self, value: object) -> bool:
        """Return whether a value is valid for this argument, and can be written as text."""
        wanted = int if self.kind == "integer" else str
        return type(value) is wanted and self.read(str(value)) == value

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of a value."""
        if self.kind == "integer":
            return {"type": "integer", "description": self.summary}
        return {"type": "string", "pattern": f"^{_PATTERNS[self.kind]}$", "description": self.summary}


_INPUT = Argument(name="input", kind="name", summary="image or video to work on; else the latest")
_SEED = Argument(name="seed", kind="integer", summary="random seed")
_SIZE = Argument(name="size", kind="size", summary="width and height in pixels, as 64x48")
_LENGTH = Argument(name="length", kind="integer", summary="number of frames")
_SCALE = Argument(name="scale", kind="integer", summary="factor of enlargement")


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A task that a message can call.

    Attributes:
        name: Name of the module, such as ``image_segmentation``.
        letter: Name of the module as one letter.
        summary: One line.
        verbs: Verbs that may precede the colon, and their actions.
        arguments: Further arguments, besides ``seed`` and, for modules with an input, ``input``.
        inputs: Kinds of media of which one is needed; none for a module that works from text alone.
        output: Kind of the result.
        other_names: Further spellings, such as those of the paper.
    """

    name: str
    letter: str
    summary: str
    verbs: Mapping[str, str]
    inputs: tuple[MediaKind, ...]
    output: MediaKind
    arguments: tuple[Argument, ...] = ()
    other_names: tuple[str, ...] = ()
    table: Mapping[str, Argument] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        every = [*self.arguments, _SEED, *([_INPUT] if self.inputs else [])]
        object.__setattr__(self, "table", {argument.name: argument for argument in every})

    def action(self, instruction: Instruction) -> str:
        """Return the action of a verb; the module's first action without a verb."""
        return self.verbs.get(instruction.verb, next(iter(self.verbs.values())))

    def read(self, content: str) -> Instruction | tuple[str, ArgValue] | None:
        """Parse the content of instruction tags.

        It is split at the first colon if a verb or an argument of this module precedes it. An empty left side
        means that there is no verb.

        Returns:
            An instruction, an argument with its value, or ``None`` if the content is empty.
        """
        text = content.strip()
        left, colon, right = text.partition(":")
        word, right = " ".join(left.split()).lower(), right.strip()
        if colon and not word:
            return Instruction(text=right) if right else None
        if colon and word in self.table:
            value = self.table[word].read(right)
            if value is not None:
                return word, value
        elif colon and (verb := word.replace("_", " ")) in self.verbs:
            return Instruction(verb=verb, text=right)
        return Instruction(text=text) if text else None

    def write(self, instruction: Instruction) -> str:
        """Return the content of instruction tags, the inverse of :meth:`read`.

        Raises:
            ValueError: If the module has no such verb.
        """
        if not instruction.verb:
            plain = self.read(instruction.text) == instruction
            return instruction.text if plain else f": {instruction.text}"
        if instruction.verb not in self.verbs:
            raise ValueError(
                f"{self.name} has no verb {instruction.verb!r}: use no verb, or one of "
                f"{', '.join(self.verbs)}"
            )
        return f"{instruction.verb}: {instruction.text}".rstrip()


def _verbs(**actions: str) -> dict[str, str]:
    """Return actions by verb from verbs by action; the action is its own first verb."""
    return {
        verb: action
        for action, others in actions.items()
        for verb in (action, *(other.strip() for other in others.split(",") if other))
    }


# verbs, and the names of tasks that stand in their place in the data of the release
_EDITS = {
    "add": "insert, addition, adding, insertion, object addition",
    "remove": "delete, erase, removal, removing, deletion, object removal",
    "recolour": "recolor, colour, color, colorize, recolouring, recoloring, colour change, color change",
    "replace": "swap, replacement, replacing, substitution, object replacement",
    "move": "shift, moving, movement",
    "restyle": "style, stylise, stylize, style transfer, style change, restyling",
}
_GENERATE = "generation, draw, create, generating, creation"
_SEGMENT = "segmentation, mark, find, segmenting, referring segmentation, object segmentation"

_TABLE = (
    Module(
        name="text_to_image",
        letter="A",
        summary="generate an image from text",
        verbs=_verbs(generate=f"{_GENERATE}, image generation, text to image"),
        inputs=(),
        output="image",
        arguments=(_SIZE,),
        other_names=("image_generation",),
    ),
    Module(
        name="image_segmentation",
        letter="B",
        summary="segment objects in an image",
        verbs=_verbs(segment=f"{_SEGMENT}, image segmentation", panoptic="panoptic segmentation"),
        inputs=("image",),
        output="masks",
    ),
    Module(
        name="image_editing",
        letter="C",
        summary="edit an image",
        verbs=_verbs(
            edit="editing, modification, change, image editing, inpainting, image inpainting", **_EDITS
        ),
        inputs=("image",),
        output="image",
        other_names=("image_inpainting",),
    ),
    Module(
        name="text_to_video",
        letter="D",
        summary="generate a video from text",
        verbs=_verbs(generate=f"{_GENERATE}, video generation, text to video"),
        inputs=(),
        output="video",
        arguments=(_SIZE, _LENGTH),
        other_names=("video_generation",),
    ),
    Module(
        name="video_segmentation",
        letter="E",
        summary="segment and track objects in a video",
        verbs=_verbs(
            track="tracking, follow, video tracking, object tracking",
            segment=f"{_SEGMENT}, video segmentation, video object segmentation",
        ),
        inputs=("video",),
        output="masks",
        other_names=("video_tracking",),
    ),
    Module(
        name="video_editing",
        letter="F",
        summary="edit a video",
        verbs=_verbs(
            edit="editing, modification, change, video editing",
            foreground="foreground editing",
            background="background editing",
            **_EDITS,
        ),
        inputs=("video",),
        output="video",
    ),
    Module(
        name="image_to_video",
        letter="G",
        summary="animate an image",
        verbs=_verbs(
            animate="animation, generate, generation, video generation, image animation, image to video"
        ),
        inputs=("image",),
        output="video",
        arguments=(_LENGTH,),
        other_names=("image_animation",),
    ),
    Module(
        name="restoration",
        letter="R",
        summary="restore a degraded image",
        verbs=_verbs(
            restore="restoration, image restoration",
            denoise="denoising",
            deblur="sharpen, deblurring",
            upscale="enlarge, upscaling, super-resolution, super resolution",
            dejpeg="",
        ),
        inputs=("image",),
        output="image",
        arguments=(_SCALE,),
        other_names=("image_restoration",),
    ),
)


class ModuleRegistry:
    """The modules of one language.

    Args:
        modules: Modules in the order of their letters.

    Raises:
        ValueError: If a name, a letter or another spelling is taken twice.
    """

    def __init__(self, modules: Iterable[Module]) -> None:
        self._modules = {module.name: module for module in modules}
        self._spellings = dict[str, Module]()
        for module in self._modules.values():
            for spelling in (module.name, module.letter, *module.other_names):
                if _normal(spelling) in self._spellings:
                    raise ValueError(f"two modules are called {spelling!r}")
                self._spellings[_normal(spelling)] = module

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __getitem__(self, name: str) -> Module:
        return self._modules[name]

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def resolve(self, text: str) -> Module | None:
        """Return the module that a text names, in any case and spacing, or ``None``.

        Example:
            >>> MODULES.resolve(" Video Segmentation ").letter
            'E'
        """
        return self._spellings.get(_normal(text))

    def with_modules(self, *more: Module) -> ModuleRegistry:
        """Return a registry with further modules.

        Raises:
            ValueError: If two have the same name.
        """
        return ModuleRegistry([*self, *more])

    def spellings(self, only: Callable[[Module], bool] = lambda module: True) -> list[str]:
        """Return the names and the letters that the grammar allows."""
        return [name for module in self if only(module) for name in (module.name, module.letter)]


def _normal(text: str) -> str:
    return "_".join(text.replace("-", " ").replace("_", " ").split()).lower()


MODULES = ModuleRegistry(_TABLE)
