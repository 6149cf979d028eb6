# SPDX-License-Identifier: Apache-2.0
"""Videos: one frame after the other, steadied over time."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from itaclip.images import ImageError, shrink
from itaclip.pictures import LegendEntry, add_legend, class_colours, paint, resize_segmentation
from itaclip.results import Segmentation
from itaclip.rules import close_labels, label_pixels, small_classes

if TYPE_CHECKING:
    from itaclip.config import ITACLIPConfig
    from itaclip.model import ITACLIP

# mean difference of two frames, of 1, from which they are taken as two scenes
_CUT = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOptions:
    """How a video is segmented.

    Attributes:
        smoothing: Share of the past in the probabilities of a frame, in [0, 1); 0 takes frames alone.
        every: Segment each so-manieth frame; those between keep its labels.
        max_side: Long side, in pixels, of the frames that are segmented and of the video that is written.
        max_frames: Stop after so many; ``None`` for all.
        opacity: Of the colours, in [0, 1].
        legend: Whether the classes are listed below the picture.

    Raises:
        ValueError: If a number leaves its range.
    """

    smoothing: float = 0.6
    every: int = 1
    max_side: int = 1280
    max_frames: int | None = None
    opacity: float = 0.55
    legend: bool = True

    def __post_init__(self) -> None:
        for name in ("smoothing", "opacity"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.smoothing == 1:
            raise ValueError("smoothing must be less than 1, or the first frame would stay for ever")
        if self.every < 1 or (self.max_frames is not None and self.max_frames < 1) or self.max_side < 16:
            raise ValueError(
                "every and max_frames must be positive and max_side at least 16, "
                f"got {self.every=}, {self.max_frames=}, {self.max_side=}"
            )


@dataclass(frozen=True, slots=True)
class VideoReport:
    """What was done.

    Attributes:
        frames: Written.
        segmented: Of these, through the model.
        cuts: Times at which the past was forgotten.
        shares: Mean share of each class that occurs, over all frames.
    """

    frames: int
    segmented: int
    cuts: int
    shares: dict[str, float]


class Smoother:
    """Steadies probabilities over time by an exponential mean, anew after a cut.

    Args:
        smoothing: Share of the past, in [0, 1).
        config: Rules that turn probabilities into labels.
    """

    def __init__(self, smoothing: float, config: ITACLIPConfig) -> None:
        self.smoothing, self.config = smoothing, config
        self.cuts = 0
        self._past: Tensor | None = None
        self._seen: NDArray[np.floating] | None = None

    def __call__(self, frame: Image.Image, found: Segmentation) -> Segmentation:
        """Return the frame's segmentation with the past mixed in.

        Args:
            frame: What was segmented.
            found: With scores.
        """
        seen = np.asarray(frame.resize((32, 32)), dtype=np.float32) / np.float32(255)
        if self._seen is not None and float(np.abs(seen - self._seen).mean()) > _CUT:
            self._past = None
            self.cuts += 1
        self._seen = seen
        scores = found.scores
        if scores is None or not self.smoothing:
            return found
        if self._past is not None and self._past.shape == scores.shape:
            scores = self._past.lerp(scores, 1 - self.smoothing)
        self._past = scores
        return relabel(found, scores, self.config)


def relabel(found: Segmentation, scores: Tensor, config: ITACLIPConfig) -> Segmentation:
    """Return the segmentation that other probabilities give under the same rules.

    Args:
        found: Names and background.
        scores: ``(classes, H, W)``, probabilities.
        config: Thresholds and closing.
    """
    dropped = None
    if config.area_thd is not None:
        areas = scores.argmax(dim=0).flatten().bincount(minlength=len(scores))
        dropped = small_classes(areas, config.area_thd, background=found.background)
    labels, best = label_pixels(
        scores, background=found.background, prob_thd=config.prob_thd, dropped=dropped
    )
    labels = close_labels(labels) if config.closing else labels
    return replace(found, labels=labels, probabilities=best, scores=scores)


def segment_video(
    segmenter: ITACLIP,
    source: Path,
    target: Path,
    *,
    options: VideoOptions | None = None,
    labels: Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> VideoReport:
    """Write a video of overlays, H.264 in MP4 without sound.

    Args:
        segmenter: With its classes set.
        source: Anything that FFmpeg reads.
        target: An ``.mp4`` file.
        options: How.
        labels: ``.npz`` file for ``labels (frames, H, W)``, ``times`` in seconds and ``names``.
        progress: Called with frames done and frames in all, if that is known.

    Raises:
        ImportError: If PyAV is missing.
        ImageError: If the video cannot be read or a file not written.
    """
    options = options or VideoOptions()
    av = import_av()
    if target.suffix.lower() != ".mp4":
        raise ImageError(f"a video must be an .mp4 file, got {target.name}")
    if labels is not None and labels.suffix.lower() != ".npz":
        raise ImageError(f"label maps of a video must be an .npz file, got {labels.name}")
    with _writing(target, labels) as (video_part, labels_part), _reading(av, source) as container:
        if not container.streams.video:
            raise ImageError(f"{source} has no pictures")
        keeper = None if labels_part is None else _LabelFile(labels_part)
        try:
            report = _process(av, segmenter, container, video_part, options, keeper, progress)
            if not report.frames:
                raise ImageError(f"{source} has no frames that can be decoded")
            if keeper is not None:
                keeper.finish(segmenter.class_names)
        finally:
            if keeper is not None:
                keeper.close()
    return report


def import_av() -> Any:
    """Return PyAV.

    Raises:
        ImportError: If it is missing.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError('videos need PyAV: pip install "itaclip[video]"') from error
    return av


@contextmanager
def _writing(target: Path, labels: Path | None) -> Generator[tuple[Path, Path | None]]:
    """Yield temporary places beside the files, which become them in the end, or nothing does."""
    video_part = target.with_name(f".{target.name}.{os.getpid()}.part")
    labels_part = None if labels is None else labels.with_name(f".{labels.name}.{os.getpid()}.part")
    try:
        try:
            for path in (target, labels):
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
            yield video_part, labels_part
            if labels_part is not None and labels is not None:
                labels_part.replace(labels)
            video_part.replace(target)
        except OSError as error:
            raise ImageError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        for part in (video_part, labels_part):
            if part is not None:
                part.unlink(missing_ok=True)


@contextmanager
def _reading(av: Any, source: Path) -> Generator[Any]:
    if not source.is_file():
        raise ImageError(f"{source} does not exist" if not source.exists() else f"{source} is no file")
    try:
        with av.open(str(source)) as container:
            yield container
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        raise ImageError(f"{source} is not a video that can be read: {error}") from error


def _process(
    av: Any,
    segmenter: ITACLIP,
    container: Any,
    target: Path,
    options: VideoOptions,
    keeper: _LabelFile | None,
    progress: Callable[[int, int | None], None] | None,
) -> VideoReport:
    stream = container.streams.video[0]
    total = stream.frames or None
    if total is not None and options.max_frames is not None:
        total = min(total, options.max_frames)
    painter = _Painter(segmenter, options)
    areas: NDArray[np.float64] = np.zeros(len(segmenter.class_names))
    done = 0
    # the container's name ends in .part, so its format must be told
    with av.open(str(target), "w", format="mp4") as out:
        encoder: Any = None
        for frame in _frames(container, stream, options.max_frames):
            picture = shrink(_upright(frame), options.max_side)
            drawn, found = painter.draw(picture, fresh=done % options.every == 0)
            if encoder is None:
                encoder = _add_stream(out, stream, drawn.size)
            encoded = av.VideoFrame.from_image(_fit(drawn, (encoder.width, encoder.height)))
            encoded.pts, encoded.time_base = _time(frame, done, stream)
            for packet in encoder.encode(encoded):
                out.mux(packet)
            areas += np.bincount(found.labels.numpy().ravel(), minlength=len(areas)) / found.labels.numel()
            if keeper is not None:
                keeper.add(found, float(encoded.pts * encoded.time_base))
            done += 1
            if progress is not None:
                progress(done, total)
        if encoder is not None:
            for packet in encoder.encode():
                out.mux(packet)
    names = segmenter.class_names
    shares = {name: float(area / done) for name, area in zip(names, areas, strict=True) if area > 0}
    ordered = dict(sorted(shares.items(), key=lambda item: -item[1]))
    return VideoReport(done, painter.segmented, painter.smoother.cuts, ordered)


def _frames(container: Any, stream: Any, max_frames: int | None) -> Iterator[Any]:
    for number, frame in enumerate(container.decode(stream)):
        if max_frames is not None and number >= max_frames:
            return
        yield frame


def _upright(frame: Any) -> Image.Image:
    """Turn a frame as its display matrix says, which telephones write."""
    image: Image.Image = frame.to_image()
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    kinds = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}
    return image.transpose(kinds[turns]) if turns else image


def _add_stream(out: Any, source: Any, size: tuple[int, int]) -> Any:
    rate = source.average_rate or Fraction(25)
    encoder = out.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
    # the chroma planes have half the size
    encoder.width, encoder.height = size[0] + size[0] % 2, size[1] + size[1] % 2
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = source.time_base or 1 / rate
    encoder.codec_context.time_base = encoder.time_base
    return encoder


def _fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Put a picture into the video's frame; later frames could differ in size."""
    if image.size == size:
        return image
    sheet = Image.new("RGB", size)
    sheet.paste(image, (0, 0))
    return sheet


def _time(frame: Any, number: int, stream: Any) -> tuple[int, Fraction]:
    base = stream.time_base
    if frame.pts is None or base is None:
        rate = stream.average_rate or Fraction(25)
        base = base or 1 / rate
        return round(number / rate / base), base
    return max(0, frame.pts - (stream.start_time or 0)), base


class _Painter:
    """Turns frames into overlays.

    Args:
        segmenter: With its classes set.
        options: Smoothing, opacity and legend.
    """

    def __init__(self, segmenter: ITACLIP, options: VideoOptions) -> None:
        self.segmenter, self.options = segmenter, options
        self.smoother = Smoother(options.smoothing, segmenter.config)
        self.segmented = 0
        self._last: Segmentation | None = None

    def draw(self, picture: Image.Image, *, fresh: bool) -> tuple[Image.Image, Segmentation]:
        """Return the overlay and what it shows; labels of before are kept unless ``fresh``."""
        found = self._last
        if found is None or fresh:
            (found,) = self.segmenter.stream([picture], return_scores=self.options.smoothing > 0)
            found = self.smoother(picture, found)
            # past scores are kept by the smoother alone
            found = self._last = replace(found, scores=None)
            self.segmented += 1
        found = resize_segmentation(found, (picture.height, picture.width))
        line = max(1, round(max(picture.size) / 640))
        colours = class_colours(found)
        drawn = paint(picture, found, colours, opacity=self.options.opacity, line=line)
        if not self.options.legend:
            return drawn, found
        entries: list[LegendEntry] = []
        for number, name in enumerate(found.names):
            red, green, blue = (int(value) for value in colours[number])
            if number or not found.background:
                entries.append(LegendEntry(name, (red, green, blue)))
        return add_legend(drawn, entries, max(13, round(max(picture.size) / 55))), found


class _LabelFile:
    """Collects label maps on disk, so that memory does not grow with the video.

    Args:
        path: The ``.npz`` to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.times: list[float] = []
        self._raw = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed in close
        self._shape: tuple[int, int] | None = None
        self._dtype = np.dtype(np.uint8)

    def add(self, found: Segmentation, time: float) -> None:
        """Append the labels of a frame; all have the size of the first."""
        if self._shape is None:
            self._shape = found.size
            self._dtype = np.dtype(np.uint8 if len(found.names) <= 256 else np.uint16)
        found = resize_segmentation(found, self._shape)
        self._raw.write(found.labels.numpy().astype(self._dtype).tobytes())
        self.times.append(time)

    def finish(self, names: tuple[str, ...]) -> None:
        """Write the file."""
        shape = (len(self.times), *(self._shape or (0, 0)))
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        self._raw.seek(0)
        with zipfile.ZipFile(self.path, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open("labels.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_2_0(member, header)
                shutil.copyfileobj(self._raw, member)
            for name, values in (("times", np.array(self.times)), ("names", np.array(names))):
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)

    def close(self) -> None:
        """Delete what was collected."""
        self._raw.close()
