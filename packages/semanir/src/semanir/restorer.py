# SPDX-License-Identifier: Apache-2.0
"""Restoring whole images of any size, depth and kind with a network that sees tiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import psutil
import torch
from common_kernels.runtime.cli import OnProgress as Progress
from common_kernels.runtime.hub import DType
from common_kernels.runtime.images import MAX_PIXELS, ImageFile, read_image, write_image
from common_kernels.tiling import largest_tile, map_tiles, plan_tiles
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from semanir.model import SemanIR
from semanir.options import RestoreOptions
from semanir.pictures import before_after

ImageLike = TypeVar("ImageLike", Image.Image, NDArray[np.generic])
_DEFAULT = RestoreOptions()

_FULL_SCALE: dict[np.dtype[Any], float] = {
    np.dtype(np.uint8): 255.0,
    np.dtype(np.uint16): 65535.0,
    np.dtype(np.float32): 1.0,
}
_LARGEST_TILE = 1024  # pixels; beyond it, time per pixel no longer falls and progress gets rare
_MEMORY_SHARE = 0.5  # of what is free


class Restorer:
    """Applies a network to images as people have them.

    Args:
        model: The network; it is set to evaluation mode, in channels-last layout.
        batch_size: Tiles that go through the network together.

    Example:
        >>> import numpy as np
        >>> restorer = Restorer.from_pretrained("tiny-denoise", device="cpu")
        >>> restorer.restore(np.zeros((20, 30, 3), dtype=np.uint8)).shape
        (20, 30, 3)
    """

    def __init__(self, model: SemanIR, *, batch_size: int = 1) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.model = model.to(memory_format=torch.channels_last).eval()
        self.batch_size = batch_size

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        device: str | torch.device = "auto",
        dtype: DType | torch.dtype = "auto",
        batch_size: int = 1,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> Self:
        """Load a network by name, folder or hub id, as :meth:`SemanIR.from_pretrained`, and wrap it."""
        model = SemanIR.from_pretrained(
            name_or_path, device=device, dtype=dtype, revision=revision, token=token
        )
        return cls(model, batch_size=batch_size)

    def check_options(self, options: RestoreOptions) -> None:
        """Check what options ask of this network.

        Raises:
            ValueError: If the network enlarges and ``strength`` is below 1, or tiles are too small for it.
        """
        config = self.model.config
        grid, overlap = config.size_multiple, self._overlap(options)
        if isinstance(options.tile, int) and options.tile < overlap + grid:
            raise ValueError(
                f"tile must be at least overlap + {grid}, the grid of this network, "
                f"got tile={options.tile} and {overlap=}"
            )
        if options.strength != 1 and config.upscale != 1:
            raise ValueError(
                f"strength must be 1 for a network that enlarges, "
                f"got strength={options.strength} and upscale={config.upscale}"
            )

    def restore(
        self,
        image: ImageLike,
        options: RestoreOptions = _DEFAULT,
        *,
        progress: Progress | None = None,
    ) -> ImageLike:
        """Restore one image.

        Args:
            image: A Pillow image (L, LA, RGB or RGBA; turned upright by its EXIF), or an array ``(H, W)`` or
                ``(H, W, C)`` with ``C`` of 1 to 4: uint8, uint16, or float32 nominally in [0, 1]. A second
                or fourth channel is transparency.
            options: How it is restored.
            progress: Called with tiles done and tiles in all.

        Returns:
            The kind and dtype of ``image``, its sides multiplied by the network's ``upscale``. Integers are
            rounded and clipped; floats are not clipped. Transparency is kept, resized if need be. A Pillow
            image keeps colour profile, EXIF and resolution in its ``info``.

        Raises:
            TypeError: If the dtype or Pillow mode is not one of these.
            ValueError: If the shape is not one of these, a number is not finite, or the network cannot do
                what the options ask.
        """
        if isinstance(image, Image.Image):
            if image.mode not in {"L", "LA", "RGB", "RGBA"}:
                raise TypeError(f"a Pillow image must have mode L, LA, RGB or RGBA, got {image.mode}")
            return self._restore_pillow(image, options, progress)
        self.check_options(options)
        full_scale = _check(image)
        x = torch.from_numpy(image.astype(np.float32) / np.float32(full_scale))
        x = (x.unsqueeze(-1) if x.ndim == 2 else x).permute(2, 0, 1)  # (C, H, W)
        has_alpha = x.shape[0] in (2, 4)
        colour, alpha = (x[:-1], x[-1:]) if has_alpha else (x, x[:0])
        y = self._restore_colour(colour, options, progress)
        if options.strength != 1:
            y = torch.lerp(colour, y, options.strength)
        y = torch.cat([y, self._resize_alpha(alpha)])
        out = y.permute(1, 2, 0).reshape(*y.shape[1:], *image.shape[2:]).numpy()
        if image.dtype == np.float32:
            return out
        return (out * full_scale).round().clip(0, full_scale).astype(image.dtype)

    def _restore_pillow(
        self, image: Image.Image, options: RestoreOptions, progress: Progress | None
    ) -> Image.Image:
        upright = ImageOps.exif_transpose(image)
        result = Image.fromarray(self.restore(np.asarray(upright), options, progress=progress))
        result.info.update(
            {key: upright.info[key] for key in ("icc_profile", "exif", "dpi") if key in upright.info}
        )
        return result

    def restore_tensor(self, image: Tensor, options: RestoreOptions = _DEFAULT) -> Tensor:
        """Restore a tensor.

        Args:
            image: ``(C, H, W)`` with ``C`` of 1 or 3, floating, nominally in [0, 1].
            options: How it is restored.

        Returns:
            ``(C, s H, s W)``, fp32, on the CPU, not clipped.

        Raises:
            TypeError: If the dtype is not floating.
            ValueError: As for :meth:`restore`.
        """
        if not image.is_floating_point():
            raise TypeError(f"a tensor must be floating in [0, 1], got {image.dtype}")
        if image.ndim != 3 or image.shape[0] not in (1, 3):
            raise ValueError(f"a tensor must be (1 or 3, H, W), got {tuple(image.shape)}")
        array = image.detach().float().permute(1, 2, 0).cpu().numpy()
        return torch.from_numpy(self.restore(array, options)).permute(2, 0, 1)

    def restore_file(
        self,
        source: str | Path,
        target: str | Path,
        options: RestoreOptions = _DEFAULT,
        *,
        compare: str | Path | None = None,
        max_pixels: int = MAX_PIXELS,
        progress: Progress | None = None,
    ) -> ImageFile:
        """Restore an image file; depth, transparency, colour profile, EXIF and resolution are kept.

        Args:
            source: File to read.
            target: File to write; its suffix decides the format.
            options: How it is restored.
            compare: File for the image before and after, side by side.
            max_pixels: Limit of width times height of ``source``, checked before it is decoded.
            progress: Called with tiles done and tiles in all.

        Returns:
            What was written, with the note that came from reading.

        Raises:
            ImageError: If a file cannot be read or written.
            ValueError: As for :meth:`restore`.
        """
        before = read_image(source, max_pixels=max_pixels)
        after = replace(before, pixels=self.restore(before.pixels, options, progress=progress))
        if compare is not None:
            titles = Path(source).name, Path(target).name
            write_image(before_after(before, after, titles), compare)
        write_image(after, target)
        return after

    def _resize_alpha(self, alpha: Tensor) -> Tensor:
        scale = self.model.config.upscale
        if scale == 1 or not len(alpha):
            return alpha.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        return F.interpolate(alpha[None], scale_factor=scale, mode="bicubic")[0].clamp(0, 1)

    def _restore_colour(self, x: Tensor, options: RestoreOptions, progress: Progress | None) -> Tensor:
        """Fit the channels to the network: grey goes through a colour network as three equal channels."""
        channels = x.shape[0]
        wanted = self.model.config.in_channels
        if wanted not in (1, 3):
            raise ValueError(f"the network takes {wanted} channels; Restorer handles 1 and 3")
        passes = channels if wanted == 1 else 1
        turns = 8 if options.self_ensemble else 1
        parts = x.split(1) if wanted == 1 else (x.expand(3, -1, -1),)
        results: list[Tensor] = []
        for number, part in enumerate(parts):
            turned: list[Tensor] = []
            for turn in range(turns):
                report = _pass_progress(progress, number * turns + turn, passes * turns)
                turned.append(_turn_back(self._run(_turn(part, turn), options, report), turn))
            y = torch.stack(turned).mean(dim=0)
            results.append(y.mean(dim=0, keepdim=True) if y.shape[0] > channels else y)
        return torch.cat(results)

    def _run(self, x: Tensor, options: RestoreOptions, report: Progress) -> Tensor:
        """Run the network on ``(C, H, W)``, halving the tile each time that memory runs out."""
        tile = self._choose_tile(options, *x.shape[-2:])
        smallest = self._overlap(options) + self.model.config.size_multiple
        while True:
            try:
                return self._run_tiled(x, tile, options, report)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error) or tile <= smallest:
                    raise
                if x.is_cuda or next(self.model.parameters()).is_cuda:
                    torch.cuda.empty_cache()
                grid = self.model.config.size_multiple
                tile = max(smallest, min(tile, max(x.shape[-2:])) // 2 // grid * grid)

    def _overlap(self, options: RestoreOptions) -> int:
        return 2 * self.model.config.size_multiple if options.overlap is None else options.overlap

    def _choose_tile(self, options: RestoreOptions, height: int, width: int) -> int:
        if options.tile is None:
            return max(height, width)
        if isinstance(options.tile, int):
            return options.tile
        config = self.model.config
        smallest = self._overlap(options) + config.size_multiple
        return largest_tile(
            int(_free_bytes(next(self.model.parameters()).device) * _MEMORY_SHARE / self.batch_size),
            self._bytes_per_pixel(),
            multiple=config.size_multiple,
            minimum=smallest,
            maximum=max(_LARGEST_TILE, smallest),
        )

    def _bytes_per_pixel(self) -> float:
        """Estimate peak working memory: some thirty maps of the first level, the masks, the output."""
        config = self.model.config
        size = next(self.model.parameters()).element_size()
        tokens = config.window_size**2
        masks = 2 * tokens * (1 + (config.num_heads[0] if config.position_bias == "mlp" else 0))
        head = 64 * config.upscale**2 if config.upscale > 1 else 0
        return size * ((30 * config.embed_dims[0] + masks) / config.patch_unshuffle**2 + 4 * head)

    def _run_tiled(self, x: Tensor, tile: int, options: RestoreOptions, report: Progress) -> Tensor:
        config = self.model.config
        parameter = next(self.model.parameters())
        grid = config.size_multiple
        if tile >= max(x.shape[-2:]):
            plan = plan_tiles(*x.shape[-2:], tile=max(x.shape[-2:]))
        else:
            # tiles start on the grid of the windows, so that inner windows are those of the whole image
            overlap = self._overlap(options)
            plan = plan_tiles(*x.shape[-2:], tile=tile // grid * grid, overlap=overlap, multiple=grid)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            report(done, len(plan))

        def network(batch: Tensor) -> Tensor:
            batch = batch.to(parameter.dtype, memory_format=torch.channels_last)
            return self.model(batch, k=options.k)

        with torch.inference_mode():
            return map_tiles(
                network,
                x,
                plan,
                batch_size=self.batch_size,
                scale=config.upscale,
                device=parameter.device,
                progress=advance,
            ).clone()


def _check(image: NDArray[np.generic]) -> float:
    """Check an array; return the value of white."""
    if image.dtype not in _FULL_SCALE:
        raise TypeError(f"image must be uint8, uint16 or float32, got {image.dtype}")
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[2] > 4):
        raise ValueError(f"image must be (H, W) or (H, W, C) with C of 1 to 4, got shape {image.shape}")
    if image.dtype == np.float32 and not np.isfinite(image).all():
        raise ValueError("image must be finite, got NaN or infinity")
    return _FULL_SCALE[image.dtype]


def _pass_progress(progress: Progress | None, number: int, passes: int) -> Progress:
    """Turn the progress of one pass into that of all."""

    def report(done: int, tiles: int) -> None:
        if progress is not None:
            progress(number * tiles + done, passes * tiles)

    return report


def _turn(x: Tensor, number: int) -> Tensor:
    x = torch.rot90(x, number % 4, (-2, -1))
    return x.flip(-1) if number >= 4 else x


def _turn_back(x: Tensor, number: int) -> Tensor:
    x = x.flip(-1) if number >= 4 else x
    return torch.rot90(x, -(number % 4), (-2, -1))


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # the CPU allocator raises a plain RuntimeError
    return "not enough memory" in str(error) or "can't allocate memory" in str(error)
