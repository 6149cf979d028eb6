# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, and what they mean."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from itaclip.cli.output import quiet_libraries, warn
from itaclip.config import AttentionConfig, ITACLIPConfig
from itaclip.text.classes import ClassList, shipped_classes

if TYPE_CHECKING:
    from itaclip.model import ITACLIP
    from itaclip.text.sources import TextSource

_MAY_BE_NONE = ("area_threshold", "mid_pairs")
_CLASS_FILES = (".txt", ".yaml", ".yml", ".json")

Classes = Annotated[
    str,
    typer.Option(
        "--classes",
        "-c",
        help='Names: "cat, dog, sky" ("person|man|woman, dog" for several names of a class), a file with a '
        f"class per line (or YAML, JSON), or one of {', '.join(shipped_classes())}.",
    ),
]
Background = Annotated[
    str | None,
    typer.Option(
        help='Words for what is none of the classes, as "wall, floor"; "auto" takes 44 common ones. They '
        "become class 0.",
    ),
]
BackgroundFirst = Annotated[
    bool,
    typer.Option("--background-first", help="The first line of a text file of classes is the background."),
]
Texts = Annotated[
    str | None,
    typer.Option(
        help='Definitions or synonyms mixed into the names: a file of "name >=text" lines (or YAML, JSON), '
        'or "auto", "definitions" or "synonyms" for those inside this package.',
    ),
]
Model = Annotated[
    str,
    typer.Option(help="Shipped name, folder, hub id, or open_clip's name with --pretrained."),
]
Pretrained = Annotated[str | None, typer.Option(help="Tag of open_clip's weights, or a .safetensors file.")]
Preset = Annotated[
    str, typer.Option(help="Settings of the method; 'itaclip presets' lists them. auto fits the model.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting of the preset, as stride=56 or attention.ffn=true; may be repeated.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Windows times branches in one pass.", rich_help_panel="Machine"),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda[:n].", rich_help_panel="Machine")]
DTypeOption = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="Arithmetic; auto is float16 on CUDA, else float32.", rich_help_panel="Machine"),
]
Cache = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Keep embedded texts.", rich_help_panel="Machine")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite/--skip-existing", help="What to do with results that are there.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per result on stdout.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Machine")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model with which settings, where.

    Attributes:
        model: As for :meth:`itaclip.ITACLIP.from_pretrained`.
        pretrained: Likewise.
        preset: Likewise.
        settings: ``KEY=VALUE`` each.
        batch_size: Replaces that of the preset.
        device: ``"auto"``, ``"cpu"`` or ``"cuda[:n]"``.
        dtype: Arithmetic.
        cache: Whether embedded texts are kept.
    """

    model: str
    pretrained: str | None = None
    preset: str = "auto"
    settings: Sequence[str] = ()
    batch_size: int | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    cache: bool = True

    def config(self) -> ITACLIPConfig:
        """Return the effective configuration.

        Raises:
            ValueError: If the preset, a setting or its value is unknown.
        """
        own = "tiny-shapes" if self.model == "tiny-shapes" else "itaclip"
        name = own if self.preset == "auto" else self.preset
        config = change_settings(ITACLIPConfig.preset(name), self.settings)
        return config if self.batch_size is None else replace(config, batch_size=self.batch_size)

    def load(self, config: ITACLIPConfig) -> ITACLIP:
        """Load the model.

        Raises:
            ValueError: As :meth:`itaclip.ITACLIP.from_pretrained`.
            FileNotFoundError: Likewise.
        """
        from itaclip.model import ITACLIP  # torch is slow to import; wrong usage should not wait for it

        with quiet_libraries():
            return ITACLIP.from_pretrained(
                self.model,
                pretrained=self.pretrained,
                preset=config,
                device=self.device,
                dtype=self.dtype,
                cache="auto" if self.cache else None,
            )


def change_settings(config: ITACLIPConfig, settings: Sequence[str]) -> ITACLIPConfig:
    """Apply ``KEY=VALUE`` changes; values are JSON, or plain words; lists stand between commas.

    Raises:
        ValueError: If a key is unknown, or a value of the wrong kind or range.
    """
    changes: dict[str, Any] = {}
    inner_changes: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        inner = key.removeprefix("attention.")
        part = config if inner == key else config.attention
        if not equals or inner not in _setting_names(part):
            every = _setting_names(config)
            every += [f"attention.{name}" for name in _setting_names(config.attention)]
            raise ValueError(f"--set takes KEY=VALUE with KEY of {', '.join(every)}, got {setting!r}")
        try:
            value = _value(inner, text, getattr(part, inner))
        except TypeError as error:
            raise ValueError(f"--set {setting}: the value is of the wrong kind") from error
        (changes if inner == key else inner_changes)[inner] = value
    # all at once: some settings must fit each other
    try:
        return replace(config, attention=replace(config.attention, **inner_changes), **changes)
    except TypeError as error:
        raise ValueError(f"--set {' --set '.join(settings)}: a value is of the wrong kind") from error


def _setting_names(part: ITACLIPConfig | AttentionConfig) -> list[str]:
    return [field.name for field in fields(part) if field.name != "attention"]


def _value(key: str, text: str, before: object) -> object:
    """Read a value as JSON, or, if it is none, as words; where a tuple was, a tuple comes."""
    value = _read(text)
    if value is None and key in _MAY_BE_NONE:
        return None
    if isinstance(before, tuple) or key == "mid_pairs":
        parts = [_read(part.strip()) for part in text.split(",") if part.strip()]
        return tuple(value) if isinstance(value, list) else tuple(parts)
    if not _alike(before, value):
        raise TypeError
    return value


def _read(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _alike(before: object, value: object) -> bool:
    if before is None:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(before, bool) or isinstance(value, bool):
        return isinstance(before, bool) and isinstance(value, bool)
    if isinstance(before, float):
        return isinstance(value, int | float)
    return isinstance(value, type(before))


def parse_classes(text: str, *, background: str | None = None, background_first: bool = False) -> ClassList:
    """Understand what ``--classes`` says.

    Args:
        text: Names between commas, further names of a class behind ``|``; a file; or a shipped list.
        background: Words between commas, or ``"auto"``.
        background_first: Whether the first line of a text file is the background.

    Raises:
        ValueError: If nothing is named, or the same is named twice.
        TextFileError: If the file cannot be read or used.
    """
    path = Path(text)
    if text in shipped_classes():
        classes = ClassList.shipped(text)
    elif _is_file(path):
        classes = ClassList.from_file(path, background=background_first)
    elif path.suffix.lower() in _CLASS_FILES and "," not in text:
        raise ValueError(f"{text}: there is no such file of classes")
    else:
        if os.sep in text and "," not in text:
            warn(f"{text!r} is no file: it is taken as the name of a class")
        rows = [[name.strip() for name in row.split("|")] for row in text.split(",") if row.strip()]
        if not rows:
            raise ValueError('--classes is empty: give names, as "cat, dog, sky"')
        classes = ClassList.build(rows)
    if background is None:
        return classes
    words = [word.strip() for word in background.split(",") if word.strip()]
    if words == ["auto"]:
        taken = {name.casefold() for name in classes.names}
        common = ClassList.shipped("voc21").classes[0]
        words = [word for word in common if word.casefold() not in taken]
    return ClassList.build(classes, background=words)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # many names in a row are longer than a file's may be
        return False


def find_texts(text: str | None, classes: str) -> TextSource | None:
    """Understand what ``--texts`` says.

    Args:
        text: A file, the name of shipped texts, ``"auto"`` or ``None``.
        classes: What ``--classes`` says, which may be a data set with texts of its own.

    Raises:
        ValueError: If there is none of this name, or the file cannot be used.
    """
    if text is None:
        return None
    from itaclip.text.sources import SHIPPED_KIND, as_source

    if text == "auto":
        text = classes if classes in SHIPPED_KIND else "definitions"
    return as_source(text)
