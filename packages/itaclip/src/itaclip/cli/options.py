# SPDX-License-Identifier: Apache-2.0
"""Option groups that several commands share."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypedDict,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from common_kernels.runtime.cli import warn
from common_kernels.runtime.fingerprint import digest_model
from cyclopts import Group, Parameter, Token

from itaclip.config import ITACLIPConfig
from itaclip.shipped import SHIPPED
from itaclip.text.classes import ClassList, shipped_classes
from itaclip.text.sources import SHIPPED_KIND, aux_texts

if TYPE_CHECKING:
    from itaclip.model import ITACLIP

T = TypeVar("T")

_CLASS_FILES = (".txt", ".yaml", ".yml", ".json")

METHOD = Group(
    "Method", sort_key=3, help="Configuration of the method; by default that of the preset. Lists: a,b,c."
)


def comma_list(hint: Any, tokens: Sequence[Token]) -> tuple[Any, ...]:
    """Convert ``a,b,c`` to a tuple, for options of cyclopts.

    Args:
        hint: ``tuple[X, ...]``.
        tokens: Texts of the option, which may be repeated.

    Raises:
        ValueError: If an item is not of the kind ``X``.
    """
    items = [part.strip() for token in tokens for part in token.value.split(",") if part.strip()]
    return tuple(_convert(get_args(hint)[0], item) for item in items)


def _comma_list_or_none(hint: Any, tokens: Sequence[Token]) -> tuple[Any, ...] | None:
    is_none = [token.value.strip() for token in tokens] == ["none"]
    return None if is_none else comma_list(hint, tokens)


def _convert(kind: Any, text: str) -> object:
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ValueError(f"each item must be one of {', '.join(get_args(kind))}, got {text!r}")
        return text
    if kind is str:
        return text
    # int comes before float: block numbers are whole, relative depths are not
    kinds = [each for each in (int, float) if each is kind or each in get_args(kind)]
    for number in kinds:
        try:
            return number(text)
        except ValueError:
            continue
    raise ValueError(f"each item must be a number, got {text!r}")


def changes_of(config: type) -> Any:
    """Return a typed dictionary of the fields of a configuration, none of them required.

    As an option group of cyclopts it becomes a dictionary of the options that were given.

    Args:
        config: Dataclass; its "Attributes:" become the help of the options.
    """
    hints = get_type_hints(config)
    kinds: dict[str, Any] = {}
    for each in fields(config):
        hint = hints[each.name]
        if is_dataclass(hint) and isinstance(hint, type):
            hint = changes_of(hint)
        elif get_origin(hint) is tuple:
            hint = Annotated[hint, Parameter(converter=comma_list)]
        elif any(get_origin(option) is tuple for option in get_args(hint)):
            hint = Annotated[hint, Parameter(converter=_comma_list_or_none)]
        kinds[each.name] = hint
    made: Any = TypedDict(config.__name__, kinds, total=False)  # pyright: ignore[reportArgumentType] - fields of a class
    made.__doc__, made.__module__ = config.__doc__, __name__
    return made


def apply_changes(config: T, changes: Mapping[str, Any] | None) -> T:
    """Return a configuration with the fields that were given.

    Args:
        config: Configuration to start from.
        changes: Values by field, nested as the configuration is; ``None`` for none.

    Raises:
        ValueError: If the fields do not fit each other.
    """
    given = {
        name: apply_changes(getattr(config, name), value) if isinstance(value, Mapping) else value
        for name, value in (changes or {}).items()
    }
    return replace(config, **given)  # pyright: ignore[reportArgumentType, reportUnknownVariableType] - dataclasses


Changes = Mapping[str, Any] | None
if TYPE_CHECKING:
    MethodOptions = Changes
else:
    MethodOptions = Annotated[
        changes_of(ITACLIPConfig), Parameter(name="*", group=METHOD, show_default=False)
    ]


@Parameter(name="*", group=Group("Classes", sort_key=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class ClassNames:
    """Names of classes.

    Attributes:
        classes: Names: "cat, dog, sky" ("person|man|woman, dog" for several names of a class), a file with a
            class per line (or YAML, JSON), or a list that "itaclip texts show" names.
        background_first: First line of a text file of classes as the background.
    """

    classes: Annotated[str, Parameter(alias="-c")]
    background_first: Annotated[bool, Parameter(negative="")] = False

    def parse(self) -> ClassList:
        """Return the classes.

        Raises:
            ValueError: If no class is named, or a name is given twice.
            TextFileError: If the file cannot be read or used.
        """
        return parse_classes(self.classes, background_first=self.background_first)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassOptions(ClassNames):
    """Classes to segment.

    Attributes:
        background: Names for what is none of the classes, as "wall, floor"; auto takes 44 common ones.
        texts: Definitions or synonyms mixed into the names: a file of "name >=text" lines (or YAML, JSON), or
            auto, definitions or synonyms for those inside this package.
    """

    background: str | None = None
    texts: str | None = None

    def parse(self) -> ClassList:
        """Return the classes, with their background."""
        found = ClassNames.parse(self)
        if self.background is None:
            return found
        words = [word.strip() for word in self.background.split(",") if word.strip()]
        if words == ["auto"]:
            taken = {name.casefold() for name in found.names}
            common = ClassList.shipped("voc21").classes[0]
            words = [word for word in common if word.casefold() not in taken]
        return ClassList.build(found, background=words)

    def setup(self, model: ModelOptions, changes: Changes, dtype: str) -> Setup:
        """Check classes, texts and configuration together.

        Args:
            model: Model.
            changes: Options of the method given on the command line.
            dtype: Compute dtype.

        Raises:
            ValueError: If classes, texts or configuration cannot be used.
        """
        classes = self.parse()
        # the kind that the method uses for the list
        own = self.classes if self.classes in SHIPPED_KIND else "definitions"
        texts = aux_texts(own if self.texts == "auto" else self.texts, classes)
        return Setup(model=model, config=model.config(changes), classes=classes, texts=texts, dtype=dtype)


def parse_classes(text: str, *, background_first: bool = False) -> ClassList:
    """Return the classes of the text of ``--classes``.

    Args:
        text: Names between commas, further names of a class behind ``|``; a file; or a shipped list.
        background_first: Whether the first line of a text file is the background.

    Raises:
        ValueError: If no class is named, or a name is given twice.
        TextFileError: If the file cannot be read or used.
    """
    path = Path(text)
    if text in shipped_classes():
        return ClassList.shipped(text)
    if _is_file(path):
        return ClassList.from_file(path, background=background_first)
    if path.suffix.lower() in _CLASS_FILES and "," not in text:
        raise ValueError(f"{text}: there is no such file of classes")
    if os.sep in text and "," not in text:
        warn(f"{text!r} is not a file: it is taken as the name of a class")
    rows = [[name.strip() for name in row.split("|")] for row in text.split(",") if row.strip()]
    if not rows:
        raise ValueError('--classes is empty: give names, as "cat, dog, sky"')
    return ClassList.build(rows)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # many names in a row are longer than a file's may be
        return False


@Parameter(name="*", group=Group("Model", sort_key=2))
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Model.

    Attributes:
        model: Shipped name, folder, hub id, or open_clip's name of an architecture with --pretrained.
        pretrained: Tag of open_clip's weights, or a .safetensors file.
        preset: Configuration of the method, see "itaclip presets"; auto fits the model.
        cache: Cache of embedded texts on disk.
    """

    model: str = "tiny-shapes"
    pretrained: str | None = None
    preset: str = "auto"
    cache: bool = True

    def config(self, changes: Changes) -> ITACLIPConfig:
        """Return the effective configuration.

        Args:
            changes: Options given on the command line.

        Raises:
            ValueError: If the preset is unknown or the changes do not fit it.
        """
        own = "tiny-shapes" if self.model == "tiny-shapes" else "itaclip"
        return apply_changes(ITACLIPConfig.preset(own if self.preset == "auto" else self.preset), changes)

    def load(self, config: ITACLIPConfig, *, device: str, dtype: str) -> ITACLIP:
        """Load the model.

        Raises:
            ValueError: As :meth:`itaclip.ITACLIP.from_pretrained`.
            ModelNotFoundError: Likewise.
        """
        from itaclip.model import ITACLIP

        # what matters of the log lines of libraries comes as an error
        before = logging.root.manager.disable
        logging.disable(logging.ERROR)
        try:
            return ITACLIP.from_pretrained(
                self.model,
                pretrained=self.pretrained,
                preset=config,
                device=device,
                dtype=dtype,  # pyright: ignore[reportArgumentType] - one of the choices of the option
                cache="auto" if self.cache else None,
            )
        finally:
            logging.disable(before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Model, configuration and classes, checked before anything is loaded.

    Attributes:
        model: Model.
        config: Effective configuration.
        classes: Classes to segment.
        texts: Auxiliary texts of each class but the background; ``None`` for none.
        dtype: Compute dtype.
    """

    model: ModelOptions
    config: ITACLIPConfig
    classes: ClassList
    texts: Sequence[tuple[str, ...]] | None
    dtype: str

    def settings(self) -> dict[str, object]:
        """Return everything that results depend on, as plain values."""
        config = self.config.to_dict()
        del config["batch_size"]
        name = self.model.model
        return {
            "model": digest_model(SHIPPED.folder(name) if name in SHIPPED.names() else name),
            "pretrained": digest_model(self.model.pretrained) if self.model.pretrained else None,
            "config": config,
            "classes": self.classes.classes,
            "background": self.classes.background,
            "texts": self.texts,
            "dtype": self.dtype,
            "version": version("itaclip"),
        }

    def load(self, device: str) -> ITACLIP:
        """Load the model on a device and set the classes.

        Raises:
            ValueError: As :meth:`itaclip.ITACLIP.from_pretrained` and :meth:`itaclip.ITACLIP.set_classes`.
            ModelNotFoundError: If there is no such model or its files cannot be used.
        """
        segmenter = self.model.load(self.config, device=device, dtype=self.dtype)
        rows = None if self.texts is None else dict(zip(self.classes.foreground, self.texts, strict=True))
        return segmenter.set_classes(self.classes, aux=rows)
