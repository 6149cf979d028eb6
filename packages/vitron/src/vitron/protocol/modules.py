# SPDX-License-Identifier: Apache-2.0
"""The modules that a reply may call: names, letters, verbs and arguments.

The letters A to G and their tasks are those of the published code; R, and all verbs and arguments, are ours.
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
        name: As in ``seed: 3``.
        kind: ``integer``; ``name`` of an image, video or mask of this conversation; ``size`` as ``64x48``;
            or any ``text``.
        summary: One line.
    """

    name: str
    kind: ArgumentKind
    summary: str

    def read(self, text: str) -> ArgValue | None:
        """Return the value that a text says, or ``None`` if it says none."""
        if not re.fullmatch(_PATTERNS[self.kind], text, re.DOTALL):
            return None
        return int(text) if self.kind == "integer" else text

    def accepts(self, value: object) -> bool:
        """Tell whether a value is one of this argument, and can be written as text."""
        wanted = int if self.kind == "integer" else str
        return type(value) is wanted and self.read(str(value)) == value

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of a value."""
        if self.kind == "integer":
            return {"type": "integer", "description": self.summary}
        return {"type": "string", "pattern": f"^{_PATTERNS[self.kind]}$", "description": self.summary}


_INPUT = Argument(name="input", kind="name", summary="image or video to work on; else the latest")
_SEED = Argument(name="seed", kind="integer", summary="number that the randomness starts from")
_SIZE = Argument(name="size", kind="size", summary="width and height in pixels, as 64x48")
_LENGTH = Argument(name="length", kind="integer", summary="number of frames")
_SCALE = Argument(name="scale", kind="integer", summary="factor of enlargement")


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A task that a reply can call for.

    Attributes:
        name: As in ``<module>image_segmentation</module>``.
        letter: The same in one letter.
        summary: One line.
        verbs: Every verb that may stand before the colon, and the action that it means.
        arguments: What else may be said, besides ``seed`` and, where there is an input, ``input``.
        inputs: Kinds of media of which one is needed; none if it makes something from words.
        output: Kind of what it makes.
        other_names: Further spellings, as the paper's.
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
        """Return what a verb means; the module's first action where there is none."""
        return self.verbs.get(instruction.verb, next(iter(self.verbs.values())))

    def read(self, content: str) -> Instruction | tuple[str, ArgValue] | None:
        """Read what stands between instruction tags.

        It is split at the first colon, and only if a verb or an argument of this module stands before it. An
        empty left side says that there is no verb, whatever follows.

        Returns:
            An instruction, an argument with its value, or ``None`` if nothing is said.
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
        elif colon and word in self.verbs:
            return Instruction(verb=word, text=right)
        return Instruction(text=text) if text else None

    def write(self, instruction: Instruction) -> str:
        """Return the content between instruction tags that :meth:`read` understands.

        Raises:
            ValueError: If the verb is none of this module.
        """
        if not instruction.verb:
            plain = self.read(instruction.text) == instruction
            return instruction.text if plain else f": {instruction.text}"
        if instruction.verb not in self.verbs:
            raise ValueError(
                f"{self.name} has no verb {instruction.verb!r}: say it without a verb, or one of "
                f"{', '.join(self.verbs)}"
            )
        return f"{instruction.verb}: {instruction.text}".rstrip()


def _verbs(**actions: str) -> dict[str, str]:
    """Return verb to action from action to verbs; the action is its own first verb."""
    return {
        verb: action
        for action, others in actions.items()
        for verb in (action, *others.replace(",", "").split())
    }


_EDITS = {
    "add": "insert",
    "remove": "delete, erase",
    "recolour": "recolor, colour, color",
    "replace": "swap",
    "move": "shift",
    "restyle": "style, stylise, stylize",
}

_TABLE = (
    Module(
        name="text_to_image",
        letter="A",
        summary="generate an image from text",
        verbs=_verbs(generate="generation, draw, create"),
        inputs=(),
        output="image",
        arguments=(_SIZE,),
        other_names=("image_generation",),
    ),
    Module(
        name="image_segmentation",
        letter="B",
        summary="segment objects in an image",
        verbs=_verbs(segment="segmentation, mark, find", panoptic=""),
        inputs=("image",),
        output="masks",
    ),
    Module(
        name="image_editing",
        letter="C",
        summary="edit an image",
        verbs=_verbs(edit="editing", **_EDITS),
        inputs=("image",),
        output="image",
        other_names=("image_inpainting",),
    ),
    Module(
        name="text_to_video",
        letter="D",
        summary="generate a video from text",
        verbs=_verbs(generate="generation, draw, create"),
        inputs=(),
        output="video",
        arguments=(_SIZE, _LENGTH),
        other_names=("video_generation",),
    ),
    Module(
        name="video_segmentation",
        letter="E",
        summary="segment and track objects in a video",
        verbs=_verbs(track="tracking, follow", segment="segmentation, mark, find"),
        inputs=("video",),
        output="masks",
        other_names=("video_tracking",),
    ),
    Module(
        name="video_editing",
        letter="F",
        summary="edit a video",
        verbs=_verbs(edit="editing", foreground="", background="", **_EDITS),
        inputs=("video",),
        output="video",
    ),
    Module(
        name="image_to_video",
        letter="G",
        summary="animate an image",
        verbs=_verbs(animate="animation, generate, generation"),
        inputs=("image",),
        output="video",
        arguments=(_LENGTH,),
        other_names=("image_animation",),
    ),
    Module(
        name="restoration",
        letter="R",
        summary="restore a degraded image",
        verbs=_verbs(restore="restoration", denoise="", deblur="sharpen", upscale="enlarge", dejpeg=""),
        inputs=("image",),
        output="image",
        arguments=(_SCALE,),
        other_names=("image_restoration",),
    ),
)


class ModuleRegistry:
    """The modules of one language.

    Args:
        modules: In the order of their letters.

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
        """Return a registry that has further modules.

        Raises:
            ValueError: If one is called like another.
        """
        return ModuleRegistry([*self, *more])

    def spellings(self, only: Callable[[Module], bool] = lambda module: True) -> list[str]:
        """Return the names and the letters that a grammar lets a model write."""
        return [name for module in self if only(module) for name in (module.name, module.letter)]


def _normal(text: str) -> str:
    return "_".join(text.replace("-", " ").replace("_", " ").split()).lower()


MODULES = ModuleRegistry(_TABLE)
