# SPDX-License-Identifier: Apache-2.0
"""The form of the results: checked on the way in, plain JSON on the way out."""

from __future__ import annotations

import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from common_kernels.bench.case import Kind, Mode

SCHEMA = 1
Status = Literal["measured", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a figure depends on.

    Attributes:
        device: Name of the processor that did the work.
        kind: ``"cpu"`` or ``"cuda"``.
        threads: Threads of torch.
        load: Other work on the machine before the run, in running processes, or ``None`` if unknown.
        copy_gb_s: Memory bandwidth of a copy, reads and writes, in 1e9 bytes per second, in this run.
        matmul_tflop_s: Rate of a large matrix product, in 1e12 operations per second, in this run.
        python: Version.
        torch: Version.
        triton: Version, or ``None`` if not installed.
        common_kernels: Version.
        commit: Commit of the sources, ``None`` outside a checkout.
        date: Day of the run, UTC.
    """

    device: str
    kind: str
    threads: int
    load: float | None
    copy_gb_s: float
    matmul_tflop_s: float
    python: str
    torch: str
    triton: str | None
    common_kernels: str
    commit: str | None
    date: str

    @property
    def slug(self) -> str:
        """Name for files."""
        words = self.device if self.kind == "cuda" else f"{self.device} {self.threads} threads"
        return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\([a-z]+\)", "", words.lower())).strip("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One contender on one case in one mode.

    Attributes:
        op: Operator.
        case: Name of the case.
        shape: Its sizes.
        dtype: Dtype of the inputs.
        contender: Who ran.
        kind: ``"auto"``, ``"backend"``, ``"peer"`` or ``"part"``.
        mode: ``"forward"`` without gradients, ``"backward"`` alone, or ``"both"``.
        status: A ``"failed"`` one disagreed with the reference and was not timed; a ``"skipped"`` one did not
            run.
        note: Why, or which backend it was.
        error: Largest relative l2 error against float64, of the output and, but for forward, of every
            gradient; ``None`` also for one that does not compute the operator.
        median_ms: Median time.
        low_ms: 20 % quantile.
        high_ms: 80 % quantile.
        runs: Timed runs.
        ratio: Its time over that of ``auto``: median over the rounds in which both ran.
        roofline: Share of the time that the measured copy and matmul rates make unavoidable.
        first_ms: Preparation and one forward from nothing but the inputs.
        peak_bytes: Most memory held beyond the inputs on the first call, with what it prepares.
    """

    op: str
    case: str
    shape: dict[str, int]
    dtype: str
    contender: str
    kind: Kind
    mode: Mode
    status: Status
    note: str = ""
    error: float | None = None
    median_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    runs: int = 0
    ratio: float | None = None
    roofline: float | None = None
    first_ms: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run.

    Attributes:
        schema: Version of this form.
        machine: Machine and versions.
        is_quick: Whether small sizes and short times were asked for.
        measurements: All measurements, in order.
    """

    schema: int
    machine: Machine
    is_quick: bool
    measurements: list[Measurement]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """Check a parsed JSON object and build the report.

        Raises:
            ValueError: If a key is unknown or missing, a value has the wrong type, or the parts contradict
                each other; the message names the place.
        """
        report = _build(cls, data, "report")
        if report.schema != SCHEMA:
            raise ValueError(f"report.schema must be {SCHEMA}, got {report.schema}")
        for number, m in enumerate(report.measurements):
            times = (m.median_ms, m.low_ms, m.high_ms)
            if (m.status == "measured") != (m.runs > 0) or (m.runs > 0 and None in times):
                raise ValueError(
                    f"report.measurements[{number}] must have times exactly if measured, "
                    f"got {m.status} with {times}"
                )
        return report

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, floats to four digits."""
        return _rounded(asdict(self))

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read and check a file."""
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Write a file under a temporary name and rename it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(path)


T = TypeVar("T")


def _build(cls: type[T], data: Any, place: str) -> T:
    hints = typing.get_type_hints(cls)
    names = [f.name for f in fields(cls)]  # pyright: ignore[reportArgumentType] - a dataclass of ours
    if not isinstance(data, Mapping) or set(data) != set(names):
        got = sorted(data) if isinstance(data, Mapping) else type(data).__name__
        raise ValueError(f"{place} must have the keys {sorted(names)}, got {got}")
    return cls(**{name: _value(hints[name], data[name], f"{place}.{name}") for name in names})


def _value(hint: Any, value: Any, place: str) -> Any:
    """Check one value against the annotation of its field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list and isinstance(value, list):
        return [_value(arguments[0], item, f"{place}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {
            _value(arguments[0], key, place): _value(arguments[1], v, f"{place}.{key}")
            for key, v in value.items()
        }
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _value(arguments[0], value, place)
    if origin is Literal and value in arguments:
        return value
    if hint in (Machine, Measurement):
        return _build(hint, value, place)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif hint in (int, str, bool) and type(value) is hint:
        return value
    wanted = arguments if origin is Literal else getattr(hint, "__name__", hint)
    raise ValueError(f"{place} must be {wanted}, got {value!r}")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
