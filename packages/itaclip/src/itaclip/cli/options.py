# SPDX-License-Identifier: Apache-2.0
"""Option groups that several commands share."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
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

from common_kernels.runtime.cli import progress, warn
from common_kernels.runtime.fingerprint import digest_model
from cyclopts import Group, Parameter, Token

from itaclip.attention.registry import attention_names
from itaclip.config import ITACLIPConfig, Option
from itaclip.presets import Settings, resolve
from itaclip.shipped import SHIPPED
from itaclip.text.classes import ClassList, shipped_classes
from itaclip.text.files import read_lines
from itaclip.text.sources import SHIPPED_KIND, aux_texts

if TYPE_CHECKING:
    from itaclip.model import ITACLIP

T = TypeVar("T")

TINY_SHAPES = "tiny-shapes"
SHAPES_BACKGROUND = ("leaves", "gradient", "waves", "clouds", "tiles")
_CLASS_FILES = (".txt", ".yaml", ".yml", ".json")

METHOD = Group(
    "Method", sort_key=3, help="Configuration; by default that of the method and data set. Lists: a,b,c."
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


def _pair_list(_: Any, tokens: Sequence[Token]) -> dict[str, Option]:
    """Convert ``a=1,b=text`` to a dictionary; what reads as a number becomes one."""
    found: dict[str, Option] = {}
    for part in (part.strip() for token in tokens for part in token.value.split(",")):
        name, equals, text = (each.strip() for each in part.partition("="))
        if not name or not equals:
            raise ValueError(f"each option must read name=value, got {part!r}")
        try:
            found[name] = int(text) if text.lstrip("+-").isdigit() else float(text)
        except ValueError:
            found[name] = text
    return found


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
        elif get_origin(hint) is Mapping:
            hint = Annotated[Any, Parameter(converter=_pair_list, n_tokens=1, accepts_keys=False)]
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
        name: apply_changes(inner, value) if is_dataclass(inner := getattr(config, name)) else value
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
        background: A class for what is none of the others, of 44 common names.
        background_names: Names of that class instead of the common ones, as "wall, floor".
        texts: Definitions or synonyms mixed into the names: a file of "name >=text" lines (or YAML, JSON), or
            auto, definitions or synonyms for those inside this package.
        template: Prompt template of your own with {} for the name, as "an aerial photo of a {}", or a file
            with one in a line; may be given several times.
    """

    background: Annotated[bool, Parameter(negative="")] = False
    background_names: str | None = None
    texts: str | None = None
    template: Annotated[list[str], Parameter(show_default=False)] = field(default_factory=list[str])

    def parse(self, model: str = "") -> ClassList:
        """Return the classes, with their background.

        Args:
            model: Model, whose own common names are taken if it has some.
        """
        found = ClassNames.parse(self)
        if not self.background and self.background_names is None:
            return found
        if self.background_names is not None:
            words = [word.strip() for word in self.background_names.split(",") if word.strip()]
            if not words:
                raise ValueError('--background-names is empty: give names, as "wall, floor"')
        else:
            taken = {name.casefold() for name in found.names}
            words = [word for word in common_background(model) if word.casefold() not in taken]
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
        classes = self.parse(model.model)
        templates = read_templates(self.template)
        # the kind that the method uses for the list
        own = self.classes if self.classes in SHIPPED_KIND else "definitions"
        texts = aux_texts(own if self.texts == "auto" else self.texts, classes)
        return Setup(
            model=model,
            config=model.config(changes),
            classes=classes,
            texts=texts,
            templates=templates,
            dtype=dtype,
        )


def common_background(model: str) -> tuple[str, ...]:
    """Return names of what is usually none of the classes, in words that the model knows."""
    return SHAPES_BACKGROUND if model == TINY_SHAPES else ClassList.shipped("voc21").classes[0]


def read_templates(given: Sequence[str]) -> tuple[str, ...] | None:
    """Return prompt templates; ``None`` if none are given.

    Args:
        given: Templates, or files with one in a line.

    Raises:
        ValueError: If a template has not one ``{}``.
        TextFileError: If a file cannot be read.
    """
    found: list[str] = []
    for text in given:
        file = Path(text)
        names_file = "{}" not in text and (bool(file.suffix) or file.is_file())
        found += [line for _, line in read_lines(file)] if names_file else [text]
    wrong = [template for template in found if template.count("{}") != 1]
    if wrong or (given and not found):
        got = repr(wrong[0]) if wrong else "an empty file"
        raise ValueError(
            'a template must hold {} once, as "an aerial photo of a {}", or be a file of such lines, '
            f"got {got}"
        )
    return tuple(found) or None


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
        method: Method, see "itaclip presets"; auto is itaclip, or that of the shipped model.
        quick_gelu: QuickGELU in the image and text towers; by default what the checkpoint's own configuration
            says.
        cache: Cache of embedded texts on disk.
    """

    model: str = TINY_SHAPES
    pretrained: str | None = None
    method: str = "auto"
    quick_gelu: bool | None = None
    cache: bool = True

    def resolve(self, dataset: str | None = None) -> Settings:
        """Return the settings of the method, for a data set or for any image.

        Raises:
            ValueError: If the method or data set is unknown.
        """
        own = TINY_SHAPES if self.model == TINY_SHAPES else "itaclip"
        return resolve(own if self.method == "auto" else self.method, dataset)

    def config(self, changes: Changes) -> ITACLIPConfig:
        """Return the effective configuration.

        Args:
            changes: Options given on the command line.

        Raises:
            ValueError: If the method is unknown or the changes do not fit it.
        """
        return checked_config(self.resolve(), changes)

    def load(self, config: ITACLIPConfig, *, device: str, dtype: str) -> ITACLIP:
        """Load the model.

        Raises:
            ValueError: As :meth:`itaclip.ITACLIP.from_pretrained`.
            ModelNotFoundError: Likewise.
        """
        from itaclip.loading import ActivationWarning
        from itaclip.model import ITACLIP

        # what matters of the log lines of libraries comes as an error
        before = logging.root.manager.disable
        logging.disable(logging.ERROR)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                loaded = ITACLIP.from_pretrained(
                    self.model,
                    pretrained=self.pretrained,
                    quick_gelu=self.quick_gelu,
                    preset=config,
                    device=device,
                    dtype=dtype,  # pyright: ignore[reportArgumentType] - one of the choices of the option
                    cache="auto" if self.cache else None,
                )
        finally:
            logging.disable(before)
        for doubt in (each.message for each in caught if issubclass(each.category, ActivationWarning)):
            warn(str(doubt))
        return loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyImageModel(ModelOptions):
    """Model and method for images of any kind.

    Attributes:
        dataset: Data set whose published settings the method takes, such as voc21; by default those for any
            image.
    """

    dataset: str | None = None

    def config(self, changes: Changes) -> ITACLIPConfig:
        """Return the effective configuration.

        Args:
            changes: Options given on the command line.

        Raises:
            ValueError: If the method or data set is unknown or the changes do not fit it.
        """
        return checked_config(self.resolve(self.dataset), changes)


def checked_config(settings: Settings, changes: Changes) -> ITACLIPConfig:
    """Return the configuration of a method with the options that were given.

    Args:
        settings: Method and data set.
        changes: Options given on the command line.

    Raises:
        ValueError: If the changes do not fit, or there is no such attention.
    """
    config = apply_changes(settings.config, changes)
    if config.attention.strategy not in attention_names():
        raise ValueError(
            f"--attention.strategy must be one of {', '.join(attention_names())}, "
            f"got {config.attention.strategy!r}"
        )
    return config


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Model, configuration and classes, checked before anything is loaded.

    Attributes:
        model: Model.
        config: Effective configuration.
        classes: Classes to segment.
        texts: Auxiliary texts of each class but the background; ``None`` for none.
        templates: Prompt templates in place of those of the configuration.
        dtype: Compute dtype.
    """

    model: ModelOptions
    config: ITACLIPConfig
    classes: ClassList
    texts: Sequence[tuple[str, ...]] | None
    templates: tuple[str, ...] | None = None
    dtype: str

    def settings(self) -> dict[str, object]:
        """Return everything that results depend on, as plain values."""
        config = self.config.to_dict()
        del config["batch_size"]
        name = self.model.model
        towers = [each for each in self.config.attention.options.values() if isinstance(each, str)]
        return {
            "model": digest_model(SHIPPED.folder(name) if name in SHIPPED.names() else name),
            "pretrained": digest_model(self.model.pretrained) if self.model.pretrained else None,
            "quick_gelu": self.model.quick_gelu,
            "config": config,
            "classes": self.classes.classes,
            "background": self.classes.background,
            "texts": self.texts,
            "templates": self.templates,
            "towers": [digest_model(each) for each in towers if Path(each).is_dir()],
            "dtype": self.dtype,
            "version": version("itaclip"),
        }

    def warn_of_one(self) -> None:
        """Say what a single class does."""
        if len(self.classes) == 1:
            warn("there is only one class, so every pixel gets it: add classes or --background")

    def hint(self) -> None:
        """Say what a closed list of several classes does, if it is none of a benchmark."""
        lists = [ClassList.shipped(name) for name in shipped_classes()]
        if not self.classes.background and len(self.classes) > 1 and self.classes not in lists:
            warn(
                f"every pixel got one of the {len(self.classes)} classes, whatever it shows: "
                "--background adds a class for the rest"
            )

    def load(self, device: str) -> ITACLIP:
        """Load the model on a device and set the classes.

        Raises:
            ValueError: As :meth:`itaclip.ITACLIP.from_pretrained` and :meth:`itaclip.ITACLIP.set_classes`.
            ModelNotFoundError: If there is no such model or its files cannot be used.
        """
        segmenter = self.model.load(self.config, device=device, dtype=self.dtype)
        rows = None if self.texts is None else dict(zip(self.classes.foreground, self.texts, strict=True))
        with progress("class names") as on_progress:
            return segmenter.set_classes(
                self.classes, aux=rows, templates=self.templates, progress=on_progress
            )
