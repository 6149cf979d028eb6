# SPDX-License-Identifier: Apache-2.0
"""Forward hooks that read activations and leave the model as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diffeat.hooks.geometry import Geometry, arguments, geometry_of_call, stream_of_call
from diffeat.hooks.guards import may_stop
from diffeat.hooks.maps import AttentionWatch, Scores, attention_map
from diffeat.names.grammar import ActivationName
from diffeat.names.taps import Source, Tap
from diffeat.options import MapOptions


class StopForward(BaseException):  # like StopIteration, not an error
    """Ends a forward pass whose last requested activation has been read.

    Not an ``Exception``: a model's or pipeline's own handlers must not swallow it.
    """


class Sink:
    """Receiver of a recorder's activations; subclasses override the methods they need."""

    def start(self, call: int, arguments: dict[str, Any]) -> bool:
        """Begin a call of the denoiser with its named arguments; false skips the call."""
        return True

    def wants_map(self, tap: Tap, geometry: Geometry, latent: Geometry | None) -> bool:
        """Whether a map over this grid is needed; ``latent`` is the grid of the whole latent."""
        return True

    def compute_map(self, tap: Tap, scores: Scores, rows: slice, columns: slice, batch: int) -> Tensor:
        """Compute an attention map, see :func:`diffeat.hooks.maps.attention_map`."""
        return attention_map(scores, rows, columns, MapOptions(), batch)

    def take(self, tap: Tap, tensor: Tensor, call: int) -> None:
        """Receive one activation, in execution order; the tensor owns its memory."""
        raise NotImplementedError

    def finish(self, call: int) -> None:
        """End a call that was completed or stopped, but not one that failed."""


class Recorder:
    """Reads taps from every call of a denoiser while it is entered.

    Args:
        model: The denoiser.
        taps: Activations to read.
        sink: Receiver of the activations.
        stop_after: Index of the call that :class:`StopForward` ends once all its taps have been read, or
            ``"each"``; ``None`` never stops. A model whose inner modules are offloaded finishes the call
            first.
        geometry: The token grid, if the call itself does not determine it.

    Source: the hook points are the public submodules of diffusers models; nothing is replaced.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Iterable[Tap],
        sink: Sink,
        *,
        stop_after: int | Literal["each"] | None = None,
        geometry: Geometry | None = None,
    ) -> None:
        self.model = model
        self.taps = tuple(taps)
        self.call = -1
        self._sink = sink
        self._stop_after = stop_after
        self._may_stop = may_stop(model)
        self._geometry = geometry
        self._is_running = False
        self._batch = 0
        self._pending: set[ActivationName] = set()
        self._frames: dict[str | None, Geometry | None] = {}
        self._watches: list[AttentionWatch] = []
        self._pieces: dict[ActivationName, list[Tensor]] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        try:
            self._attach()
        except BaseException:
            self._detach()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._detach()

    @property
    def missing(self) -> tuple[ActivationName, ...]:
        """Requested activations missing from the latest call."""
        return tuple(tap.name for tap in self.taps if tap.name in self._pending)

    def _attach(self) -> None:
        modules = dict(self.model.named_modules())
        keep = self._handles.append
        keep(self.model.register_forward_pre_hook(self._on_start, with_kwargs=True))
        for frame in dict.fromkeys(tap.frame for tap in self.taps if tap.frame is not None):
            keep(modules[frame].register_forward_pre_hook(self._frame_hook(frame), with_kwargs=True))
        watched: dict[str, list[Tap]] = {}
        for tap in self.taps:
            if tap.port == "map":
                watched.setdefault(tap.sources[0].path, []).append(tap)
        for path, taps in watched.items():
            keep(modules[path].register_forward_pre_hook(self._before_attention))
            keep(modules[path].register_forward_hook(self._attention_hook(taps), always_call=True))
        for tap in self.taps:
            for source in tap.sources:
                module = modules.get(source.path)
                if module is None or tap.port == "map":
                    continue  # watched above, or projections that this model has not fused
                if tap.port == "input":
                    keep(module.register_forward_pre_hook(self._input_hook(tap, source), with_kwargs=True))
                else:
                    keep(module.register_forward_hook(self._output_hook(tap, source)))
        keep(self.model.register_forward_hook(self._on_end, always_call=True))

    def _detach(self) -> None:
        while self._handles:
            self._handles.pop().remove()
        self._close_watches()
        self._is_running = False
        self._frames.clear()
        self._pieces.clear()

    def _close_watches(self) -> None:
        while self._watches:
            self._watches.pop().__exit__(None, None, None)

    def _on_start(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.call += 1
        self._is_running = True
        self._pending = {tap.name for tap in self.taps}
        self._frames = {None: self._geometry or geometry_of_call(module, args, kwargs)}
        self._pieces.clear()
        named = arguments(module, args, kwargs)
        stream = stream_of_call(named)
        self._batch = 0 if stream is None else stream.shape[0]
        self._is_running = self._sink.start(self.call, named)

    def _on_end(self, module: nn.Module, args: Any, output: Any) -> None:
        was_running, self._is_running = self._is_running, False
        self._close_watches()
        if was_running and output is not None:
            self._sink.finish(self.call)
            if self._stops_here() and not self._pending:
                raise StopForward(self)

    def _frame_hook(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            sample = args[0] if args else kwargs.get("hidden_states")
            if isinstance(sample, Tensor) and sample.ndim >= 4:
                self._frames[path] = Geometry.of(*sample.shape[2:])

        return hook

    def _output_hook(self, tap: Tap, source: Source) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self._is_running:
                self._take(tap, source, self._pick(output, tap))

        return hook

    def _input_hook(self, tap: Tap, source: Source) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._is_running:
                self._take(tap, source, self._pick(args or tuple(kwargs.values()), tap))

        return hook

    def _before_attention(self, module: nn.Module, args: Any) -> None:
        if self._is_running:
            self._watches.append(AttentionWatch())
            self._watches[-1].__enter__()

    def _attention_hook(self, taps: Sequence[Tap]) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not self._watches:
                return
            # closed first: the recomputation below must not be watched
            watch = self._watches.pop()
            watch.__exit__(None, None, None)
            if output is None:
                return  # the attention itself failed, and its error is being raised
            found = watch.found()
            if not found:
                raise RuntimeError(
                    f"{taps[0].name} needs an attention that can be recorded, but {type(module).__name__} "
                    "called neither scaled_dot_product_attention nor softmax; switch to the native attention "
                    "backend (set_attention_backend('native') or set_default_attn_processor())"
                )
            whole = _one_call(found, self._batch)
            for tap in taps:
                self._take_map(tap, found[tap.call] if whole is None else whole)

        return hook

    def _take_map(self, tap: Tap, scores: Scores) -> None:
        geometry = self._frames.get(tap.frame)
        if geometry is None:
            raise ValueError(f"{tap.name} needs a token grid, which this call does not determine")
        if not self._sink.wants_map(tap, geometry, self._frames.get(None)):
            self._done(tap)
            return
        queries, keys = scores.size
        rows = geometry.rows(queries, tap)
        columns = {"all": slice(0, keys), "image": rows, "text": geometry.text(keys, tap)}[tap.keys]
        value = self._sink.compute_map(tap, scores, rows, columns, self._batch)
        self._deliver(tap, value.unflatten(2, geometry.grid))  # (B, heads, h, w, keys)

    def _take(self, tap: Tap, source: Source, tensor: Tensor) -> None:
        if source.stop is not None:
            tensor = tensor[..., : source.stop]
        if source.part is not None:
            index, count = source.part
            tensor = tensor.chunk(count, dim=-1)[index]
        whole = self._joined(tap, tensor)
        if whole is None:
            return
        if tap.layout == "tokens":
            geometry = self._frames.get(tap.frame)
            if geometry is None:
                raise ValueError(f"{tap.name} needs a token grid, which this call does not determine")
            self._deliver(tap, geometry.spread(whole, tap))
        else:
            self._deliver(tap, whole.clone(memory_format=torch.contiguous_format))

    def _joined(self, tap: Tap, tensor: Tensor) -> Tensor | None:
        """Join the pieces of chunked feed-forwards; ``None`` while pieces are missing."""
        geometry = self._frames.get(tap.frame)
        if tap.name.family != "feed-forward" or geometry is None or tensor.ndim != 3:
            return tensor
        pieces = self._pieces.setdefault(tap.name, [])
        pieces.append(tensor)
        if tensor.shape[0] != self._batch:
            dim, expected = 0, self._batch
        else:
            dim, expected = 1, geometry.tokens
        if sum(piece.shape[dim] for piece in pieces) < expected:
            return None
        del self._pieces[tap.name]
        return tensor if len(pieces) == 1 else torch.cat(pieces, dim=dim)

    def _deliver(self, tap: Tap, tensor: Tensor) -> None:
        self._sink.take(tap, tensor, self.call)
        self._done(tap)

    def _done(self, tap: Tap) -> None:
        self._pending.discard(tap.name)
        if not self._pending and self._may_stop and self._stops_here():
            self._is_running = False
            self._sink.finish(self.call)
            raise StopForward(self)

    def _stops_here(self) -> bool:
        return self._stop_after in ("each", self.call)

    def _pick(self, output: Any, tap: Tap) -> Tensor:
        """Return the tensor of the image stream in a module's output: a tensor, a tuple or a dataclass."""
        if isinstance(output, Tensor):
            return output
        items: Sequence[Any] = tuple(output.values()) if isinstance(output, dict) else tuple(output)
        if tap.item is None:
            geometry = self._frames.get(tap.frame)
            tokens = None if geometry is None else geometry.tokens
            fitting = [each for each in items if isinstance(each, Tensor) and each.shape[1:2] == (tokens,)]
            if len(fitting) == 1:
                return fitting[0]
            raise ValueError(
                f"{tap.name} is one of {len(items)} outputs, of which {len(fitting)} have the image's "
                f"{tokens} tokens, and which is the image is not known for this model; take it by its module "
                "path"
            )
        tensor = items[tap.item] if tap.item < len(items) else None
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{tap.name} needs a tensor at position {tap.item} of the module's output, got "
                f"{[type(item).__name__ for item in items]}"
            )
        return tensor


def _one_call(found: Sequence[Scores], batch: int) -> Scores | None:
    """Join attentions that a model computes image by image, as Mochi does.

    Raises:
        ValueError: If their texts differ in length, so that there is no one map.
    """
    parts = [(each.q, each.k) for each in found if each.q is not None and each.k is not None]
    if batch < 2 or len(parts) != batch or any(q.shape[0] != 1 for q, _ in parts):
        return None
    if len({(q.shape, k.shape) for q, k in parts}) > 1:
        raise ValueError("maps of several images need texts of one length; take the images one by one")
    first = found[0]
    return Scores(
        torch.cat([q for q, _ in parts]),
        torch.cat([k for _, k in parts]),
        None if first.mask is None else torch.cat([each.mask for each in found if each.mask is not None]),
        first.scale,
        first.is_causal,
    )
