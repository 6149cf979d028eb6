# SPDX-License-Identifier: Apache-2.0
"""Encode and decode images of any size, a tile at a time, without visible tiles.

Two things make tiles visible. Their edges lack the context beyond them, so every tile is processed with a
halo that is thrown away. And group normalisation takes mean and variance over a whole tile, so a flat sky
changes its tone from tile to tile; here mean and variance come from the whole image, gathered beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pixelsmith.io.norms import GlobalNorms, Sample
from pixelsmith.io.tiles import Span, Tiling, cut_axis, sample_windows
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.rows import Pixels, Rows

OnTile = Callable[[int, int], object]
_TOGETHER = 8  # windows on the device, half of the pixels of a tile


class TiledVAE:
    """An autoencoder of diffusers, used in tiles.

    Args:
        vae: ``AutoencoderKL`` or one with the same methods.
        tiling: Division into tiles; tiles of the size that the autoencoder was trained for if ``None``.
        slack: Latents by which a canvas of one tile may be larger than a tile, such as its margins.

    Raises:
        TypeError: If there is no autoencoder.
    """

    def __init__(self, vae: Any, tiling: Tiling | None = None, *, slack: int = 0) -> None:
        if vae is None:
            raise TypeError("the pipeline has no vae, which is needed to read and write images")
        self.vae = vae
        self.config = vae.config
        self.factor = 2 ** (len(self.config["block_out_channels"]) - 1)
        self.latent_channels = int(self.config["latent_channels"])
        self.tiling = tiling or default_tiling(vae)
        self.slack = slack

    @property
    def device(self) -> torch.device:
        """Device of the tiles: with offloading, not that of the weights."""
        module: nn.Module = self.vae
        hooks = (getattr(part, "_hf_hook", None) for part in module.modules())
        places = (getattr(hook, "execution_device", None) for hook in hooks)
        found = next((place for place in places if place is not None), self.vae.device)
        return torch.device(found)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the latent size of an image.

        Raises:
            ValueError: If a side is not a multiple of the factor.
        """
        if height % self.factor or width % self.factor or min(height, width) < self.factor:
            raise ValueError(
                f"height and width must be multiples of {self.factor} pixels, got height {height} and width "
                f"{width}; the nearest are height {self._nearest(height)} and width {self._nearest(width)}"
            )
        return height // self.factor, width // self.factor

    def _nearest(self, side: int) -> int:
        return max(self.factor, round(side / self.factor) * self.factor)

    def encode(
        self, rows: Rows, on_tile: OnTile | None = None, *, start: int = 0
    ) -> Iterator[tuple[int, Tensor]]:
        """Encode an image, by the mean of the posterior.

        Args:
            rows: The image.
            on_tile: Called with tiles done and tiles in all.
            start: Number of rows of latents at the top to skip, which an earlier call has encoded.

        Yields:
            ``(top, latents)``: row of the first latent, and ``(C, n, w)`` fp32 on the CPU, from the top down.

        Raises:
            ValueError: If a side is not a multiple of the factor.
        """
        size = self.size(rows.height, rows.width)
        band: tuple[Span, Pixels] | None = None

        def fetch(row: Span, column: Span) -> Tensor:
            nonlocal band
            if band is None or band[0] is not row:
                band = row, rows.read(row.start * self.factor, row.stop * self.factor)
            pixels = band[1][:, column.start * self.factor : column.stop * self.factor]
            image = torch.from_numpy(pixels.copy()).to(self.device).permute(2, 0, 1)
            return (image.float() / 127.5 - 1).to(self.vae.dtype)

        def process(images: Tensor) -> Tensor:
            found = self.vae.encode(images)
            latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
            return self.scale(latents.float())

        yield from self._run(_Network(fetch, process, 1), size, on_tile, start)

    def encode_whole(self, rows: Rows) -> Canvas:
        """Encode an image that fits into memory, see :meth:`encode`."""
        return Canvas(torch.cat([latents for _, latents in self.encode(rows)], dim=1))

    def decode(
        self, canvas: Canvas, on_tile: OnTile | None = None, *, start: int = 0
    ) -> Iterator[tuple[int, Pixels]]:
        """Decode latents.

        Args:
            canvas: Scaled latents, as the denoiser has them.
            on_tile: Called with tiles done and tiles in all.
            start: Number of rows of pixels at the top to skip, which an earlier call has decoded.

        Yields:
            ``(top, rows)``: number of the first row, and ``(n, width, 3)`` uint8, from the top down.

        Raises:
            ValueError: If the channels are not those of the autoencoder.
        """
        if canvas.channels != self.latent_channels:
            raise ValueError(
                f"the canvas must have the {self.latent_channels} channels of the vae, got {canvas.channels}"
            )

        def fetch(row: Span, column: Span) -> Tensor:
            return canvas.read(row.start, column.start, row.length, column.length).to(self.device)

        def process(latents: Tensor) -> Tensor:
            z = self.unscale(latents).to(self.vae.dtype)
            return self.vae.decode(z, return_dict=False)[0].float()

        network = _Network(fetch, process, self.factor)
        for top, image in self._run(network, canvas.size, on_tile, start // self.factor):
            levels = ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            yield top * self.factor, np.ascontiguousarray(levels.permute(1, 2, 0).numpy())

    def spans(self, height: int, width: int) -> tuple[list[Span], list[Span]]:
        """Return the rows and the columns of tiles of a canvas; sizes in latents."""
        return cut_axis(height, self.tiling, self.slack), cut_axis(width, self.tiling, self.slack)

    def scale(self, latents: Tensor) -> Tensor:
        """Scale the output of the encoder, ``(B, C, h, w)``, to the latents of the denoiser."""
        mean, deviation = self._moments(latents)
        return (latents - mean) * (self.config["scaling_factor"] / deviation)

    def unscale(self, latents: Tensor) -> Tensor:
        """Undo :meth:`scale`."""
        mean, deviation = self._moments(latents)
        return latents * (deviation / self.config["scaling_factor"]) + mean

    def _moments(self, latents: Tensor) -> tuple[Tensor | float, Tensor | float]:
        mean, deviation = self.config.get("latents_mean"), self.config.get("latents_std")
        if mean is None or deviation is None:
            return self.config.get("shift_factor") or 0.0, 1.0
        return latents.new_tensor(mean).view(1, -1, 1, 1), latents.new_tensor(deviation).view(1, -1, 1, 1)

    def _comes_in_pieces(self) -> bool:
        """Return whether weights are loaded layer by layer, and offloaded before the norms read them."""
        module: nn.Module = self.vae
        return any(parameter.is_meta for parameter in module.parameters())

    def _run(
        self, network: _Network, size: tuple[int, int], on_tile: OnTile | None, start: int
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield rows of kept tiles side by side, ``(C, n, w)``."""
        rows, columns = self.spans(*size)
        left = [row for row in rows if row.keep_stop > start]
        if not left:
            return
        total, done = len(rows) * len(columns), (len(rows) - len(left)) * len(columns)
        with ExitStack() as stack:
            stack.enter_context(_prepared(self.vae))
            if self.tiling.statistics == "global" and total > 1 and not self._comes_in_pieces():
                norms = stack.enter_context(GlobalNorms(self.vae))
                with torch.no_grad():
                    self._gather(norms, network, size)
            for row in left:
                parts: list[Tensor] = []
                for column in columns:
                    # not around the yield: the consumer would compute without gradients, too
                    with torch.no_grad():
                        part = network.process(network.fetch(row, column)[None])[0]
                    kept = (_grown(span.inner, network.grow) for span in (row, column))
                    parts.append(part[:, *kept].cpu())
                    done += 1
                    if on_tile is not None:
                        on_tile(done, total)
                yield row.keep_start, torch.cat(parts, dim=2)

    def _gather(self, norms: GlobalNorms, network: _Network, size: tuple[int, int]) -> None:
        windows = sample_windows(size, self.tiling)
        span = (windows[0][0].length, windows[0][1].length)

        def sample(part: Sequence[tuple[Span, Span]]) -> Sample:
            def run() -> None:
                network.process(torch.stack([network.fetch(row, column) for row, column in part]))

            return Sample(span, [(row.inner, column.inner) for row, column in part], run)

        norms.gather([sample(windows[at : at + _TOGETHER]) for at in range(0, len(windows), _TOGETHER)])


@dataclass(frozen=True, slots=True)
class _Network:
    """One direction of the autoencoder.

    Attributes:
        fetch: Function that returns the input of a tile, ``(C, h, w)``.
        process: Network, called with inputs ``(B, C, h, w)``.
        grow: Pixels of the result per latent.
    """

    fetch: Callable[[Span, Span], Tensor]
    process: Callable[[Tensor], Tensor]
    grow: int


def default_tiling(vae: Any) -> Tiling:
    """Return tiles that are, with their halo, as large as the images that an autoencoder was trained on."""
    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    trained = vae.config.get("sample_size") or 512
    side = (trained if isinstance(trained, int) else min(trained)) // factor
    return Tiling(tile=max(64, side) - 32, halo=16)


def _grown(latents: slice, factor: int) -> slice:
    return slice(latents.start * factor, latents.stop * factor)


@contextmanager
def _prepared(vae: Any) -> Generator[None]:
    """Disable the autoencoder's own tiling, and upcast float16 where it overflows, within a context."""
    tiles = getattr(vae, "use_tiling", None)
    raised = vae.dtype == torch.float16 and bool(vae.config.get("force_upcast"))
    module: nn.Module = vae
    try:
        if tiles is not None:
            vae.use_tiling = False
        if raised:
            module.to(dtype=torch.float32)
        yield
    finally:
        if tiles is not None:
            vae.use_tiling = tiles
        if raised:
            module.to(dtype=torch.float16)
