# SPDX-License-Identifier: Apache-2.0
"""Restoring whole images of any size, depth and kind with a network that sees tiles."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self, Unpack, overload

import numpy as np
import torch
from common_kernels.runtime.cli import OnProgress as Progress
from common_kernels.runtime.hub import DType, HubOptions
from common_kernels.runtime.images import MAX_PIXELS
from numpy.typing import NDArray

from semanir.networks import Network, load_network
from semanir.options import RestoreOptions, VideoOptions
from semanir.restoring.files import FileReport, restore_file
from semanir.restoring.kinds import ImageLike, pack
from semanir.restoring.source import Result, Source
from semanir.restoring.tiles import TileRunner, check_options
from semanir.restoring.video import VideoReport, restore_video

_DEFAULT = RestoreOptions()
_VIDEO = VideoOptions()


class Restorer:
    """Applies a network to images as people have them.

    Threads may share it: the network runs for one of them at a time.

    Args:
        model: The network; it is set to evaluation mode, in channels-last layout.
        batch_size: Tiles that go through the network together, be they of one image or of several.

    Example:
        >>> import numpy as np
        >>> restorer = Restorer.from_pretrained("tiny-denoise", device="cpu")
        >>> restorer.restore(np.zeros((20, 30, 3), dtype=np.uint8)).shape
        (20, 30, 3)
    """

    def __init__(self, model: Network, *, batch_size: int = 1) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.model = model.to(memory_format=torch.channels_last).eval()
        self.batch_size = batch_size
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        device: str | torch.device = "auto",
        dtype: DType | torch.dtype = "auto",
        batch_size: int = 1,
        **hub: Unpack[HubOptions],
    ) -> Self:
        """Load a network by name, folder, file or hub id, see :func:`semanir.networks.load_network`."""
        model = load_network(name_or_path, device=device, dtype=dtype, **hub)
        return cls(model, batch_size=batch_size)

    def check_options(self, options: RestoreOptions) -> None:
        """Check what options ask of this network.

        Raises:
            ValueError: If the network enlarges and ``strength`` is below 1, or tiles are too small for it.
        """
        check_options(self.model.config, options)

    @overload
    def restore(
        self,
        image: ImageLike,
        options: RestoreOptions = ...,
        *,
        out: NDArray[Any] | None = None,
        progress: Progress | None = None,
    ) -> ImageLike: ...
    @overload
    def restore(
        self, image: list[ImageLike], options: RestoreOptions = ..., *, progress: Progress | None = None
    ) -> list[ImageLike]: ...
    def restore(
        self,
        image: Any,
        options: RestoreOptions = _DEFAULT,
        *,
        out: NDArray[Any] | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """Restore one image, or a list of images of any sizes.

        Args:
            image: A Pillow image (turned upright by its EXIF); an array ``(H, W)`` or ``(H, W, C)`` with
                ``C`` of 1 to 4: uint8, uint16, or floating, nominally in [0, 1]; a tensor ``(C, H, W)`` or
                ``(B, C, H, W)``, uint8 or floating, nominally in [0, 1], on any device; or a list of these.
                A second or fourth channel is transparency. An array may be a memory-mapped file.
            options: How it is restored.
            out: Array that takes the result of an array, such as a memory-mapped file.
            progress: Called with passes of the network done and in all.

        Returns:
            The kind, dtype and device of ``image``, its sides multiplied by the network's ``upscale``; of a
            list a list in its order. Integers are rounded and clipped; floats are not clipped. Transparency
            is kept, resized if need be. A Pillow image keeps colour profile, EXIF, XMP and resolution in its
            ``info``; palettes, bitmaps, CMYK and Lab become RGB or grey.

        Raises:
            TypeError: If the kind or dtype is none of these.
            ValueError: If the shape is not one of these, a number is not finite, ``out`` does not fit, or the
                network cannot do what the options ask.
        """
        packed = [pack(each) for each in (image if isinstance(image, list) else [image])]
        scale, strength = self.model.config.upscale, options.strength
        results = [Result(Source(array), scale, strength) for each in packed for array in each.arrays]
        canvases = [np.empty(each.shape, each.source.dtype) for each in results] if out is None else [out]
        if out is not None:
            _check_out(out, image, results)
        for canvas, bands in zip(canvases, self.stream(results, options, progress), strict=True):
            top = 0
            for rows in bands:
                canvas[top : top + len(rows)] = rows
                top += len(rows)
        restored = iter(canvases)
        found = [each.unpack([next(restored) for _ in each.arrays]) for each in packed]
        return found if isinstance(image, list) else found[0]

    def stream(
        self, results: list[Result], options: RestoreOptions, progress: Progress | None = None
    ) -> Iterator[Iterator[NDArray[Any]]]:
        """Restore images band by band; each must be taken before the next image.

        Args:
            results: Images to restore.
            options: How they are restored.
            progress: Called with passes of the network done and in all.

        Yields:
            For each image its rows from the top down, some at a time.
        """
        runner = self.runner(options)
        total = sum(
            len(runner.plan(each.source.height, each.source.width)) * runner.passes(each.source)
            for each in results
        )
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        bands = runner.run((each.source for each in results), advance)
        for result, parts in zip(results, bands, strict=True):
            yield (result.rows(top, band) for top, band in parts)

    def runner(self, options: RestoreOptions) -> TileRunner:
        """Return one pass of the network over images.

        Raises:
            ValueError: If the network cannot do what the options ask.
        """
        return TileRunner(
            self.model,
            self.model.config,
            options,
            batch_size=self.batch_size,
            lock=self._lock,
        )

    def restore_file(
        self,
        source: str | Path,
        target: str | Path,
        options: RestoreOptions = _DEFAULT,
        *,
        compare: str | Path | None = None,
        max_pixels: int = MAX_PIXELS,
        progress: Progress | None = None,
    ) -> FileReport:
        """Restore an image file; depth, transparency, colour profile, EXIF, XMP and resolution are kept.

        Results of more than 16 million pixels are written as their rows come: PNG and TIFF need memory for
        some rows of tiles, other formats a memory-mapped file. A TIFF keeps all its pages; of other files
        with several images the first is restored.

        Args:
            source: File to read.
            target: File to write; its suffix decides the format.
            options: How it is restored.
            compare: File for the image before and after, side by side.
            max_pixels: Limit of width times height of ``source``, checked before it is decoded.
            progress: Called with passes of the network done and in all, for each page.

        Returns:
            Size, change and remarks.

        Raises:
            ImageError: If a file cannot be read or written, or the format cannot hold the result.
            ValueError: As for :meth:`restore`.
        """
        return restore_file(
            partial(self.stream, options=options, progress=progress),
            Path(source),
            Path(target),
            scale=self.model.config.upscale,
            strength=options.strength,
            compare=None if compare is None else Path(compare),
            max_pixels=max_pixels,
        )

    def restore_video(
        self,
        source: str | Path,
        target: str | Path,
        options: RestoreOptions = _DEFAULT,
        *,
        video: VideoOptions = _VIDEO,
        max_pixels: int = MAX_PIXELS,
        progress: Progress | None = None,
    ) -> VideoReport:
        """Restore a video frame by frame, in memory for a few frames; needs PyAV (extra ``video``).

        Frames are decoded in a thread of their own, keep their times, and go through the network
        ``batch_size`` at a time.

        Args:
            source: MP4, MOV, WebM, MKV, AVI and others, or an animated image.
            target: ``.mp4`` (H.264, with the sound if it can be copied) or ``.gif``.
            options: How frames are restored.
            video: Temporal consistency, quality and sound.
            max_pixels: Limit of width times height.
            progress: Called with frames done and in all.

        Returns:
            Size, frame rate, change and remarks.

        Raises:
            ImportError: If PyAV is missing.
            OSError: If the file cannot be written.
            ValueError: As for :meth:`restore`; an ``ImageError`` if the video cannot be read or written.
        """
        return restore_video(
            self.runner(options),
            Path(source),
            Path(target),
            video,
            scale=self.model.config.upscale,
            strength=options.strength,
            max_pixels=max_pixels,
            progress=progress,
        )


def _check_out(out: NDArray[Any], image: object, results: list[Result]) -> None:
    if not isinstance(image, np.ndarray):
        raise ValueError(f"out takes the result of one array, got {type(image).__name__}")
    wanted = results[0].shape, results[0].source.dtype
    if (out.shape, out.dtype) != wanted:
        raise ValueError(
            f"out must have shape {wanted[0]} and dtype {wanted[1]}, got {out.shape} and {out.dtype}"
        )
