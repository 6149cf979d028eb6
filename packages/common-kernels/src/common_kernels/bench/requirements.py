# SPDX-License-Identifier: Apache-2.0
"""The requirements that a report is checked against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common_kernels.bench.case import MODES, Mode
from common_kernels.bench.results import Measurement, Report

SLACK = 1.05
_SDPA = ("SDPA, boolean mask", "SDPA, float mask")
_MATMUL_TOPK = ("matmul, sorted top-k", "matmul, unsorted top-k")
_TOPK = ("torch.topk, sorted", "torch.topk, unsorted")
# times of an H100 or H200 in bf16; sizes by what tells them apart
_S1: dict[str, int] = {"B": 256, "N": 256, "k": 64}
_S2: dict[str, int] = {"B": 64, "N": 1024, "head_dim": 32, "k": 128}
_S3: dict[str, int] = {"B": 64, "N": 1024, "k": 512}
_S4: dict[str, int] = {"B": 16, "N": 4096, "k": 128}
_S5: dict[str, int] = {"B": 4, "N": 16384, "k": 64}
_S6: dict[str, int] = {"B": 4, "N": 16384, "k": 256}
_MICROSECONDS = ((_S1, 70), (_S2, 200), (_S3, 260), (_S4, 350), (_S5, 350), (_S6, 600))
# how many times as long the better SDPA, and gather, may take at least
_TIMES_SDPA = ((_S1, 2.5), (_S2, 2.5), (_S3, 2.5), (_S4, 3), (_S5, 12), (_S6, 5.5))
_TIMES_GATHER = ((_S1, 25), (_S2, 20), (_S3, 80))


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement and whether a report meets it.

    Attributes:
        name: Measured quantity.
        target: Limit of the quantity, in words.
        worst: Worst figure, or ``None`` if nothing of it was measured.
        where: Case and mode of the worst figure.
        misses: Number of figures that miss the target.
        figures: Number of figures.
    """

    name: str
    target: str
    worst: float | None
    where: str
    misses: int
    figures: int

    @property
    def result(self) -> str:
        """``"met"``, ``"missed"`` or ``"not measured"``."""
        if self.worst is None:
            return "not measured"
        return "missed" if self.misses else "met"


Figure = tuple[float, str]
Rows = Sequence[Measurement]


def check_requirements(report: Report) -> list[Requirement]:
    """Check a report against every requirement for its kind of device.

    Those of the CPU are requirements on the compiled kernels: where there are none, they are "not measured".
    """
    rows = report.measurements
    found = [
        _at_most(f"`{op}`: time of auto over the best alternative in torch", SLACK, _against_best(rows, op))
        for op in ("knn_attention", "knn_dictionary", "stage")
    ]
    if report.machine.kind == "cuda":
        return found + _on_gpu(rows)
    return found + _on_cpu(rows if any(m.kind == "auto" and m.note == "native" for m in rows) else ())


def _on_cpu(rows: Rows) -> list[Requirement]:
    # a bias costs all contenders alike, and none of these limits was set with one
    attention = [m for m in _where(rows, "knn_attention") if not m.shape.get("bias")]
    dictionary = _where(rows, "knn_dictionary")
    sparse = [m for m in attention if m.shape["N"] in (256, 1024) and 4 * m.shape["k"] <= m.shape["N"]]
    long = _where(attention, N=4096, k=64)
    small = _where(attention, B=64, N=64, k=32)
    select = [m for m in _where(rows, "selection") if m.shape["N"] >= 1024 and m.shape["k"] <= 128]
    # the output alone is 1 part in 2 k of the copies, so that fewer keys could not meet this
    many = [m for m in attention if m.shape["k"] >= 128]
    return [
        _at_least("gather over auto, forward", 60, _ratios(attention, ["gather"])),
        _at_least("gather over auto, forward and backward", 34, _ratios(attention, ["gather"], "both")),
        _at_least("k/N up to 1/4, N 256 and 1024: the better SDPA over auto", 2.3, _ratios(sparse, _SDPA)),
        _at_least("N = 4096, k = 64: the better SDPA over auto", 15, _ratios(long, _SDPA)),
        _at_least("N = 4096, k = 64: `csr` over auto", 2, _ratios(long, ["backend csr"])),
        _at_least("N = 64, k = 32: unmasked SDPA over auto", 1, _ratios(small, ["SDPA, no mask"], *MODES)),
        _at_most("peak memory of auto over gather's, forward, k from 128", 1 / 200, _memory(many)),
        _at_least("selection, N from 1024, k up to 128: `torch.topk` over auto", 2.5, _ratios(select, _TOPK)),
        _at_least(
            "`knn_dictionary`: matmul and unsorted top-k over auto",
            1,
            _ratios(dictionary, ["matmul, unsorted top-k"]),
        ),
        _at_least(
            "`fuse_phase`: angle formula over auto", 2.8, _ratios(_where(rows, "fuse_phase"), ["angles"])
        ),
    ]


def _on_gpu(rows: Rows) -> list[Requirement]:
    everything = _where(rows, "knn_attention")
    # the times are those of tokens as an image has them
    attention = [m for m in everything if not {"reordered", "unclustered", "bias"} & m.shape.keys()]
    forward = [m for m in attention if m.kind == "auto" and m.mode == "forward"]
    took = {m.case: m.median_ms for m in forward if m.median_ms}
    growth = [
        (m.median_ms / took[m.case], _place(m))
        for m in attention
        if m.kind == "auto" and m.mode == "backward" and m.median_ms and m.case in took
    ]
    flex = ["FlexAttention"]
    large = [m for m in everything if m.shape["N"] == 1024 and m.shape["B"] > 1]
    return [
        *(
            _at_most(f"{_size(s)}: microseconds, forward", limit, _us(forward, s))
            for s, limit in _MICROSECONDS
        ),
        *(
            _at_least(f"{_size(s)}: the better SDPA over auto", limit, _ratios(_where(attention, **s), _SDPA))
            for s, limit in _TIMES_SDPA
        ),
        *(
            _at_least(f"{_size(s)}: gather over auto", limit, _ratios(_where(attention, **s), ["gather"]))
            for s, limit in _TIMES_GATHER
        ),
        _at_most("backward over forward", 2.8, growth),
        _at_least("N = 1024: FlexAttention over auto, tokens reordered too", 1.3, _ratios(large, flex)),
        _at_least("FlexAttention over auto, backward", 2, _ratios(everything, flex, "backward")),
        _at_least("the better SDPA over auto, forward", 1 / 1.1, _ratios(everything, _SDPA)),
        _at_most(
            "N = 1024: peak memory of auto over gather's, forward", 0.02, _memory(_where(attention, N=1024))
        ),
        *_dictionary_on_gpu(_where(rows, "knn_dictionary")),
        *_phase_on_gpu(_where(rows, "fuse_phase")),
    ]


def _dictionary_on_gpu(rows: Rows) -> list[Requirement]:
    s2, s5 = (_where(rows, **{name: s[name] for name in ("B", "N", "k")}) for s in (_S2, _S5))
    similarity = [
        (m.peak_bytes / (4 * m.shape["B"] * m.shape["N"] ** 2), _place(m))
        for m in s5
        if m.kind == "auto" and m.peak_bytes
    ]
    name = "`knn_dictionary`"
    return [
        _at_most(f"{name}, N = 1024, k = 128: microseconds", 100, _us(s2)),
        _at_most(f"{name}, N = 16384, k = 64: microseconds", 2500, _us(s5)),
        _at_most(f"{name}, N = 16384, k = 64: peak memory over an array of all pairs", 0.05, similarity),
        _at_least(f"{name}, N = 1024, k = 128: matmul and top-k over auto", 10, _ratios(s2, _MATMUL_TOPK)),
        _at_least(f"{name}, N = 16384, k = 64: matmul and top-k over auto", 5, _ratios(s5, _MATMUL_TOPK)),
    ]


def _phase_on_gpu(rows: Rows) -> list[Requirement]:
    patch, batch = (_where(rows, B=B, H=128) for B in (1, 64))
    angles = "angle formula over auto"
    per_patch = [(us / 64, where) for us, where in _us(batch)]
    return [
        _at_most("`fuse_phase`, a patch of 128x128: microseconds", 12, _us(patch)),
        _at_most("`fuse_phase`, 64 patches of 128x128: microseconds a patch", 0.5, per_patch),
        _at_least(f"`fuse_phase`, a patch of 128x128: {angles}", 5, _ratios(patch, ["angles"])),
        _at_least(f"`fuse_phase`, 64 patches of 128x128: {angles}", 8, _ratios(batch, ["angles"])),
    ]


def _size(shape: dict[str, int]) -> str:
    return f"N = {shape['N']}, k = {shape['k']}, 65536 tokens"


def _us(rows: Rows, shape: dict[str, int] | None = None) -> list[Figure]:
    """Return the microseconds of auto, forward, by case."""
    found = [m for m in _where(rows, **(shape or {})) if m.kind == "auto" and m.mode == "forward"]
    return [(1e3 * m.median_ms, _place(m)) for m in found if m.median_ms]


def _where(rows: Rows, op: str = "", /, **shape: int) -> list[Measurement]:
    """Return the rows of an operator, of all if it is not given, and of what is given of a shape."""
    return [m for m in rows if m.op == (op or m.op) and shape.items() <= m.shape.items()]


def _ratios(rows: Rows, contenders: Sequence[str], *modes: Mode) -> list[Figure]:
    """Return the lowest ratio of several contenders to auto, by case and mode."""
    least: dict[str, float] = {}
    for m in rows:
        # paired rounds decide, so a slow moment of the machine does not
        if m.contender in contenders and m.mode in (modes or ("forward",)) and m.ratio is not None:
            least[_place(m)] = min(m.ratio, least.get(_place(m), m.ratio))
    return [(ratio, where) for where, ratio in least.items()]


def _at_least(name: str, limit: float, figures: list[Figure]) -> Requirement:
    worst = min(figures, default=None)
    misses = sum(figure < limit for figure, _ in figures)
    return _requirement(name, f"at least {limit:.3g}", worst, misses, len(figures))


def _at_most(name: str, limit: float, figures: list[Figure]) -> Requirement:
    worst = max(figures, default=None)
    misses = sum(figure > limit for figure, _ in figures)
    return _requirement(name, f"at most {limit:.3g}", worst, misses, len(figures))


def _requirement(name: str, target: str, worst: Figure | None, misses: int, figures: int) -> Requirement:
    value, where = worst or (None, "")
    return Requirement(name, target, value, where, misses, figures)


def _place(m: Measurement) -> str:
    return f"{m.case}, {m.mode}"


def _against_best(rows: Rows, op: str) -> list[Figure]:
    """Return the time of auto over that of the fastest other contender, by case and mode."""
    names = {m.contender for m in rows if m.kind in ("backend", "peer")} - {"backend triton"}
    return [(1 / ratio, where) for ratio, where in _ratios(_where(rows, op), [*names], *MODES) if ratio]


def _memory(rows: Rows) -> list[Figure]:
    """Return the peak of auto over that of gather in the first forward, by case."""
    held = {(m.case, m.contender): m for m in rows if m.mode == "forward" and m.peak_bytes}
    return [
        ((m.peak_bytes or 0) / (held[case, "gather"].peak_bytes or 1), _place(m))
        for (case, contender), m in held.items()
        if contender == "auto" and (case, "gather") in held
    ]
