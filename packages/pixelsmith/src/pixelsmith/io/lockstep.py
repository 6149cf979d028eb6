# SPDX-License-Identifier: Apache-2.0
"""Several batches on their way through one network in step, so that all of them are known at a layer.

Each batch runs in a thread of its own, and one thread runs at a time, up to the next layer at which it waits.
The tensors of the batches that wait are moved to host memory: the device holds those of one batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

_Item = TypeVar("_Item")


class _Stopped(Exception):  # noqa: N818 - no error: another thread has one
    """Ends a thread after an error in another one."""


class Lockstep(Generic[_Item]):
    """Passes items through a network in step.

    Args:
        items: What is passed, in the order in which the items reach each layer.
    """

    def __init__(self, items: Sequence[_Item]) -> None:
        self._items = items
        self._gates = [threading.Semaphore(0) for _ in items]
        self._stops = False
        self._own = threading.local()

    @property
    def item(self) -> _Item:
        """Item of the current thread."""
        return self._items[self._own.index]

    def run(self, call: Callable[[_Item], object]) -> None:
        """Call a function with every item; inside it :meth:`wait` is called at the same layers for all.

        Raises:
            Exception: The first that a call raises.
        """

        def follow(index: int) -> None:
            self._own.index, self._own.held = index, []
            try:
                self._take()
                with torch.no_grad():  # a thread begins with gradients
                    call(self._items[index])
                self._give()
            except BaseException:
                self._stop()
                raise

        with ThreadPoolExecutor(len(self._items), thread_name_prefix="pixelsmith") as pool:
            threads = [pool.submit(follow, index) for index in range(len(self._items))]
            try:
                self._gates[0].release()
                errors = [thread.exception() for thread in threads]
            except BaseException:  # such as Ctrl-C
                self._stop()
                raise
        for error in errors:
            if error is not None and not isinstance(error, _Stopped):
                raise error

    def wait(self, *tensors: Tensor) -> None:
        """Wait until all other items have reached the layer.

        Args:
            tensors: Tensors of the item that are needed afterwards, besides the inputs of the modules around
                the layer.
        """
        parked = _park([*self._own.held, *tensors]) if len(self._items) > 1 else []
        self._give()
        self._take()
        for tensor, values, device in parked:
            tensor.data = values.to(device)

    @contextmanager
    def watching(self, network: nn.Module) -> Generator[None]:
        """Note the inputs of all modules with children, which stay alive while their layers run."""

        def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._own.held.append(inputs[0] if inputs else None)

        def leave(module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
            self._own.held.pop()

        handles = [
            handle
            for module in network.modules()
            if next(module.children(), None) is not None
            for handle in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave))
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _take(self) -> None:
        self._gates[self._own.index].acquire()
        if self._stops:
            raise _Stopped

    def _give(self) -> None:
        self._gates[(self._own.index + 1) % len(self._gates)].release()

    def _stop(self) -> None:
        self._stops = True
        for gate in self._gates:
            gate.release()


def _park(tensors: Sequence[object]) -> list[tuple[Tensor, Tensor, torch.device]]:
    """Move the values of some tensors to host memory.

    Returns:
        Each tensor, which is empty now, with its values and its device.
    """
    parked: list[tuple[Tensor, Tensor, torch.device]] = []
    for tensor in {id(tensor): tensor for tensor in tensors}.values():
        if isinstance(tensor, Tensor) and tensor.device.type != "cpu":
            parked.append((tensor, tensor.data.cpu(), tensor.device))
            tensor.data = tensor.data.new_empty(0)
    return parked
