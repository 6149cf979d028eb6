# SPDX-License-Identifier: Apache-2.0
"""The registry of specialists: discovery, loading within a memory budget, and fallback."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from vitron.errors import (
    MemoryBudgetError,
    NotSetUpError,
    SpecialistError,
    SpecialistTimeoutError,
    explain,
)
from vitron.protocol.contract import SpecialistSpec
from vitron.protocol.media import Artefact
from vitron.specialists.protocol import Request, Result, Specialist
from vitron.specialists.worker import Worker

GROUP = "vitron.specialists"
Factory = Callable[[], Specialist]
Locate = Callable[[str, Artefact, NDArray[np.float32]], NDArray[np.bool_] | None]
"""Function from module name, image and signals ``(N, C)`` of a call to a mask ``(H, W)``, or ``None``."""


class Outcome(NamedTuple):
    """The outcome of a request.

    Attributes:
        result: Result of the specialist that ran the call.
        specialist: Name of that specialist.
        failures: Errors of the specialists tried before, one sentence each.
    """

    result: Result
    specialist: str
    failures: tuple[str, ...] = ()


@dataclass(slots=True)
class _Entry:
    factory: Factory
    origin: str
    specialist: Specialist | None = None
    spec: SpecialistSpec | None = None
    problem: str | None = None
    is_absent: bool = False
    running: int = 0
    is_ready: bool = False
    turn: threading.Lock = field(default_factory=threading.Lock)


class SpecialistRegistry:
    """The specialists of a conversation or a server.

    A specialist is imported when it is first needed. One that cannot be imported, or has no valid spec, is
    reported in :attr:`problems` and skipped; it never stops the others. Each runs one call at a time;
    different specialists may run concurrently.

    Args:
        memory_bytes: Most bytes of all loaded specialists, by their own estimates; the one used longest ago
            is unloaded first. ``None`` is no limit.
        timeout: Seconds for one call, loading included; ``None`` is no limit.
        prefer: Names to try first, in this order, for all modules (``sam``) or for one
            (``image_segmentation=sam``); the others follow by the preference in their specs, and those of
            equal preference in the order of registration.
        device: Device of the specialists.
        dtype: Compute dtype of the specialists.
        locate: Function that returns the mask of a call's signals, for specialists that need a region if the
            user gave none.
    """

    def __init__(
        self,
        *,
        memory_bytes: int | None = None,
        timeout: float | None = None,
        prefer: Sequence[str] = (),
        device: str = "cpu",
        dtype: str = "auto",
        locate: Locate | None = None,
    ) -> None:
        self.memory_bytes = memory_bytes
        self.timeout = timeout
        self.prefer = tuple(prefer)
        self.device = device
        self.dtype = dtype
        self.locate = locate
        self._entries: dict[str, _Entry] = {}
        self._loaded: OrderedDict[str, int] = OrderedDict()
        self._given_up: list[tuple[Worker[Result], int]] = []
        self._lock = threading.RLock()

    def discover(self) -> SpecialistRegistry:
        """Register every entry point of the group ``vitron.specialists``; return the registry itself."""
        for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
            if point.name not in self._entries:
                self.register(point.name, lambda point=point: point.load()(), origin=point.value)
        return self

    def register(self, name: str, factory: Factory, *, origin: str = "") -> None:
        """Add a specialist.

        Args:
            name: Name in this registry.
            factory: Function that returns it; called when it is first needed.
            origin: Origin for error messages.

        Raises:
            ValueError: If the name is taken.
        """
        with self._lock:
            if name in self._entries:
                raise ValueError(f"there is already a specialist called {name!r}")
            self._entries[name] = _Entry(factory, origin)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, preferred ones first."""
        first = [name for _, name in self._preferred() if name in self._entries]
        return tuple(dict.fromkeys([*first, *self._entries]))

    def _preferred(self) -> list[tuple[str, str]]:
        """Return module, empty for all, and name of each preferred specialist."""
        return [(module, name) for module, _, name in (each.rpartition("=") for each in self.prefer)]

    @property
    def problems(self) -> dict[str, str]:
        """Reasons why specialists cannot be used, by name; this imports all of them."""
        entries = {name: self._open(name) for name in self.names}
        problems = {name: entry.problem for name, entry in entries.items() if not entry.is_absent}
        unknown = {
            name: f"{name} is preferred, but does not exist"
            for _, name in self._preferred()
            if name not in self._entries
        }
        return unknown | {name: problem for name, problem in problems.items() if problem is not None}

    @property
    def absent(self) -> dict[str, str]:
        """What specialists that are not set up need, by name: a package or a model."""
        entries = {name: self._open(name) for name in self.names}
        return {name: entry.problem or "" for name, entry in entries.items() if entry.is_absent}

    @property
    def loaded(self) -> dict[str, int]:
        """Loaded specialists and their memory estimates in bytes, the one used longest ago first."""
        return dict(self._loaded)

    def spec(self, name: str) -> SpecialistSpec:
        """Return the description of a specialist.

        Raises:
            KeyError: If there is none of this name.
            SpecialistError: If it cannot be used.
        """
        entry = self._open(name)
        if entry.spec is None:
            raise SpecialistError(entry.problem)
        return entry.spec

    def create(self, name: str) -> Specialist:
        """Return a new instance of a specialist, which this registry does not manage.

        Raises:
            KeyError: If there is none of this name.
            SpecialistError: If it cannot be used.
        """
        self.spec(name)
        return self._entries[name].factory()

    def for_module(self, module: str) -> tuple[str, ...]:
        """Return the specialists that serve a module, in the order in which they are tried."""
        specs = ((name, self._open(name).spec) for name in self._entries)
        serving = {name: spec.preference for name, spec in specs if spec is not None and module in spec.tasks}
        first = [name for only, name in self._preferred() if name in serving and only in ("", module)]
        ranked = sorted(serving, key=lambda name: -serving[name])
        return tuple(dict.fromkeys([*first, *ranked]))

    def missing(self, module: str) -> str:
        """Return the error message for a module without a specialist."""
        return f"no specialist serves {module}: `vitron specialists` lists those that can be set up"

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Outcome:
        """Try the specialists of the module one after the other, until one succeeds.

        Args:
            request: The call.
            signal: Signal embeddings, ``(N, C)``.
            seed: Random seed, any integer.

        Raises:
            SpecialistTimeoutError: If the last one exceeded its timeout.
            MemoryBudgetError: If the last one does not fit the memory.
            SpecialistError: If none serves the module, or all fail.
        """
        failures = list[str]()
        last: SpecialistError | None = None
        for name in self.for_module(request.module):
            try:
                return Outcome(self._run_one(name, request, signal, seed % 2**63), name, tuple(failures))
            except SpecialistError as error:
                last = error
                failures.append(explain(error))
        if last is None:
            raise SpecialistError(self.missing(request.module))
        last.args = ("; then ".join(failures),)  # of any class of its own, whose constructor is not known
        raise last

    def unload(self, name: str | None = None) -> None:
        """Unload one specialist, or all idle ones."""
        with self._lock:
            for each in list(self._loaded) if name is None else [name]:
                if each in self._loaded and not self._entries[each].running:
                    self._evict(each)

    def _open(self, name: str) -> _Entry:
        """Return an entry with its specialist, or with the reason why it cannot be used."""
        entry = self._entries[name]
        with self._lock:
            if entry.specialist is None and entry.problem is None:
                where = f" ({entry.origin})" if entry.origin else ""
                try:
                    specialist = cast("object", entry.factory())
                    spec = getattr(specialist, "spec", None)
                    if not isinstance(specialist, Specialist) or not isinstance(spec, SpecialistSpec):
                        raise TypeError("it lacks spec, load, run or unload")
                    entry.specialist, entry.spec = specialist, spec
                except NotSetUpError as error:
                    entry.problem, entry.is_absent = f"{name} is not set up: {explain(error)}", True
                except (Exception, SystemExit) as error:  # a faulty plug-in must not stop the others
                    entry.problem = f"{name}{where} cannot be used: {type(error).__name__}: {explain(error)}"
        return entry

    def _run_one(self, name: str, request: Request, signal: NDArray[np.float32] | None, seed: int) -> Result:
        entry = self._open(name)
        specialist, spec = entry.specialist, entry.spec
        if specialist is None or spec is None:
            raise SpecialistError(entry.problem)
        with self._lock:
            self._make_room(name, spec.memory_bytes)
            entry.running += 1
            turn = entry.turn

        def work() -> Result:
            with turn:
                if not entry.is_ready:
                    specialist.load(self.device, self.dtype)
                    entry.is_ready = entry.turn is turn
                asked = self._located(request, signal) if spec.needs_region else request
                return specialist.run(asked, signal=signal, seed=seed)

        worker = Worker(work, name)
        try:
            result = worker.run(self.timeout)
            _check(name, spec, result)
            return result
        except SpecialistTimeoutError:
            with self._lock:
                # the thread may hold it forever: the next call gets a new instance
                self._loaded.pop(name, None)
                self._given_up.append((worker, spec.memory_bytes))
                entry.specialist, entry.is_ready, entry.turn = None, False, threading.Lock()
            raise
        except SpecialistError:
            raise
        except (Exception, SystemExit) as error:
            raise SpecialistError(f"{name} failed: {type(error).__name__}: {explain(error)}") from error
        finally:
            with self._lock:
                entry.running -= 1
                if not entry.is_ready and not entry.running:
                    self._loaded.pop(name, None)  # loading failed

    def _located(self, request: Request, signal: NDArray[np.float32] | None) -> Request:
        """Return the request with the mask of its signals, if it has no region and a mask is found.

        On a video it is the mask of the first frame of the part that is meant; an edit gets those of all.
        """
        if self.locate is None or signal is None or request.media is None or request.mask is not None:
            return request
        media, (first, last) = request.media, request.span
        if media.kind != "video":
            return replace(request, mask=self.locate(request.module, media, signal))
        edits = request.module == "video_editing"
        last = last if edits else first
        none = np.zeros(media.size, dtype=np.bool_)
        frames = (Artefact("video", media.frames[index : index + 1]) for index in range(first, last + 1))
        masks = [self.locate(request.module, frame, signal) for frame in frames]
        if all(mask is None for mask in masks):
            return request
        track = np.stack([none if mask is None else mask for mask in masks]) if edits else None
        return replace(request, mask=masks[0], track=track)

    def _make_room(self, name: str, need: int) -> None:
        """Unload others until the specialist fits the memory limit, and count it as loaded."""
        if name in self._loaded:
            self._loaded.move_to_end(name)
            return
        self._given_up = [(worker, size) for worker, size in self._given_up if worker.is_alive]
        if self.memory_bytes is not None:
            idle = [other for other in self._loaded if not self._entries[other].running]
            held = sum(size for _, size in self._given_up)
            held += sum(size for other, size in self._loaded.items() if other not in idle)
            if held + need > self.memory_bytes:
                raise MemoryBudgetError(
                    f"{name} needs {need} bytes and {max(0, self.memory_bytes - held)} of "
                    f"{self.memory_bytes} are free: raise the memory limit"
                )
            while held + need + sum(self._loaded[other] for other in idle) > self.memory_bytes:
                self._evict(idle.pop(0))
        self._loaded[name] = need

    def _evict(self, name: str) -> None:
        del self._loaded[name]
        entry = self._entries[name]
        entry.is_ready = False
        if entry.specialist is not None:
            try:
                entry.specialist.unload()
            except Exception:
                entry.specialist = None  # a specialist whose unload fails is dropped


def _check(name: str, spec: SpecialistSpec, result: object) -> None:
    if not isinstance(result, Result):
        raise SpecialistError(f"{name} must return a Result, got {type(result).__name__}")
    if result.artefact.kind not in spec.outputs:
        raise SpecialistError(f"{name} declares {', '.join(spec.outputs)}, got {result.artefact.kind}")
