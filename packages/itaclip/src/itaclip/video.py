# SPDX-License-Identifier: Apache-2.0
"""Videos: frame by frame, smoothed over time."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from common_kernels.runtime.files import atomic_path
from common_kernels.runtime.images import ImageError
from common_kernels.runtime.pictures import LegendEntry, add_legend
from common_kernels.runtime.video import Frame, VideoFile, VideoLimits, open_video, write_video
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from itaclip.config import ITACLIPConfig, VideoOptions
from itaclip.inputs import shrink
from itaclip.labels import close_labels, label_pixels, small_classes
from itaclip.pictures import class_colours, paint
from itaclip.results import Segmentation

if TYPE_CHECKING:
    from itaclip.model import ITACLIP

# mean difference of two frames, of 1, above which they count as two scenes
_CUT = 0.2
_CRF = 20
_LIMITS = VideoLimits(max_seconds=math.inf)  # one frame at a time is in memory


@dataclass(frozen=True, slots=True)
class VideoReport:
    """Report of a segmented video.

    Attributes:
        frames: Frames written.
        segmented: Frames that went through the model.
        cuts: Cuts, at which smoothing starts again.
        shares: Mean share of each class that occurs, over all frames.
    """

    frames: int
    segmented: int
    cuts: int
    shares: dict[str, float]


class Smoother:
    """Smooths probabilities over time by an exponential mean that starts again after a cut.

    Args:
        smoothing: Weight of the previous frames, in [0, 1).
        config: Rules that turn probabilities into labels.
    """

    def __init__(self, smoothing: float, config: ITACLIPConfig) -> None:
        self.smoothing, self.config = smoothing, config
        self.cuts = 0
        self._past: Tensor | None = None
        self._seen: NDArray[np.floating] | None = None

    def __call__(self, frame: Image.Image, found: Segmentation) -> Segmentation:
        """Return the frame's segmentation mixed with those of the previous frames.

        Args:
            frame: The segmented frame.
            found: Its segmentation, with scores.
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
    """Return the segmentation with other probabilities, under the same rules.

    Args:
        found: Segmentation whose names and background are kept.
        scores: Probabilities, ``(classes, H, W)``.
        config: Thresholds and closing.
    """
    dropped = None
    if config.area_threshold is not None:
        areas = scores.argmax(dim=0).flatten().bincount(minlength=len(scores))
        dropped = small_classes(areas, config.area_threshold, background=found.background)
    labels, best = label_pixels(
        scores, background=found.background, prob_threshold=config.prob_threshold, dropped=dropped
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
        segmenter: Segmenter with its classes set.
        source: Video of any container of :func:`common_kernels.runtime.video.open_video`.
        target: An ``.mp4`` file.
        options: Options of the segmentation; the defaults if ``None``.
        labels: ``.npz`` file for ``labels (frames, H, W)``, ``times`` in seconds and ``names``.
        progress: Called with frames done and frames in total, if that is known.

    Raises:
        ImportError: If PyAV is missing.
        ImageError: If the video cannot be read, or a suffix is another.
        OSError: If a file cannot be written.
    """
    options = options or VideoOptions()
    if target.suffix.lower() != ".mp4":
        raise ImageError(f"a video must be an .mp4 file, got {target.name}")
    if labels is not None and labels.suffix.lower() != ".npz":
        raise ImageError(f"label maps of a video must be an .npz file, got {labels.name}")
    kept = nullcontext() if labels is None else atomic_path(labels)
    with open_video(source, limits=_LIMITS) as video, kept as labels_part:
        keeper = None if labels_part is None else _LabelFile(labels_part)
        pass_ = _Pass(_Painter(segmenter, options), options, keeper, progress)
        try:
            write_video(target, pass_.frames(video), video.fps, crf=_CRF)
            if keeper is not None:
                keeper.finish(segmenter.class_names)
        finally:
            if keeper is not None:
                keeper.close()
    return pass_.report(segmenter.class_names)


class _Pass:
    """One pass over a video.

    Args:
        painter: Turns frames into overlays.
        options: Options of the segmentation.
        keeper: Collects label maps, if they are wanted.
        progress: Called with frames done and frames in total.
    """

    def __init__(
        self,
        painter: _Painter,
        options: VideoOptions,
        keeper: _LabelFile | None,
        progress: Callable[[int, int | None], None] | None,
    ) -> None:
        self.painter, self.options, self.keeper, self.progress = painter, options, keeper, progress
        self.done = 0
        self.areas: NDArray[np.float64] = np.zeros(len(painter.segmenter.class_names))

    def frames(self, video: VideoFile) -> Iterator[Frame]:
        """Yield an overlay for each frame, at its time."""
        total = min(video.num_frames, self.options.max_frames or video.num_frames)
        for frame in video.frames(range(total)):
            image = shrink(Image.fromarray(frame.pixels), self.options.max_side)
            drawn, found = self.painter.draw(image, fresh=self.done % self.options.every == 0)
            counts = np.bincount(found.labels.numpy().ravel(), minlength=len(self.areas))
            self.areas += counts / found.labels.numel()
            if self.keeper is not None:
                self.keeper.add(found, frame.time)
            yield Frame(np.asarray(drawn.convert("RGB"), dtype=np.uint8), frame.time)
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, total)

    def report(self, names: Sequence[str]) -> VideoReport:
        """Return the report once all frames are done."""
        pairs = zip(names, self.areas, strict=True)
        shares = {name: float(area / self.done) for name, area in pairs if area > 0}
        ordered = dict(sorted(shares.items(), key=lambda item: -item[1]))
        return VideoReport(self.done, self.painter.segmented, self.painter.smoother.cuts, ordered)


class _Painter:
    """Turns frames into overlays.

    Args:
        segmenter: Segmenter with its classes set.
        options: Smoothing, opacity and legend.
    """

    def __init__(self, segmenter: ITACLIP, options: VideoOptions) -> None:
        self.segmenter, self.options = segmenter, options
        self.smoother = Smoother(options.smoothing, segmenter.config)
        self.segmented = 0
        self._last: Segmentation | None = None

    def draw(self, image: Image.Image, *, fresh: bool) -> tuple[Image.Image, Segmentation]:
        """Return overlay and segmentation; the previous segmentation is kept unless ``fresh``."""
        found = self._last
        if found is None or fresh:
            (found,) = self.segmenter.stream([image], return_scores=self.options.smoothing > 0)
            found = self.smoother(image, found)
            # the smoother keeps the previous scores itself
            found = self._last = replace(found, scores=None)
            self.segmented += 1
        found = found.resized((image.height, image.width))
        line = max(1, round(max(image.size) / 640))
        colours = class_colours(found)
        drawn = paint(image, found, colours, opacity=self.options.opacity, line=line)
        if not self.options.legend:
            return drawn, found
        entries: list[LegendEntry] = []
        for number, name in enumerate(found.names):
            red, green, blue = (int(value) for value in colours[number])
            if number or not found.background:
                entries.append(LegendEntry(name, (red, green, blue)))
        return add_legend(drawn, entries), found


class _LabelFile:
    """Collects label maps on disk, so that memory does not grow with the video.

    Args:
        path: ``.npz`` file to write.
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
        found = found.resized(self._shape)
        self._raw.write(found.labels.numpy().astype(self._dtype).tobytes())
        self.times.append(time)

    def finish(self, names: tuple[str, ...]) -> None:
        """Write the file."""
        self._raw.flush()
        shape = (len(self.times), *(self._shape or (0, 0)))
        frames = np.memmap(self._raw, dtype=self._dtype, mode="r", shape=shape)
        np.savez_compressed(self.path, labels=frames, times=np.array(self.times), names=np.array(names))

    def close(self) -> None:
        """Delete the collected label maps."""
        self._raw.close()
