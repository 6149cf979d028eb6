# SPDX-License-Identifier: Apache-2.0
"""``itaclip video``: a video in, a video of overlays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from common_kernels.runtime.batch import Job, Process, run_jobs
from common_kernels.runtime.cli import Device, OnProgress, Output, say
from cyclopts import Group, Parameter

from itaclip.cli.options import AnyImageModel, ClassOptions, MethodOptions, Setup
from itaclip.config import VideoOptions


def video(
    source: Path,
    /,
    *,
    output: Output,
    classes: ClassOptions,
    model: AnyImageModel = AnyImageModel(),
    method: MethodOptions = None,
    options: Annotated[VideoOptions, Parameter(name="*", group=Group("Video", sort_key=4))] = VideoOptions(),
    labels: Annotated[Path | None, Parameter(group=Group("Output", sort_key=9))] = None,
    device: Device = Device(),
) -> int:
    """Segment a video by the classes you name; H.264 in MP4, without sound.

    Flickering labels are smoothed by an exponential mean of the probabilities, which starts again after a
    cut. Needs PyAV: pip install "itaclip[video]".

    **Examples**

        itaclip video street.mp4 -c "person, dog, grass, sky" -o out.mp4 --model ViT-B-16 --pretrained openai
        itaclip video street.mov -c classes.txt -o out.mp4 --every 5 --method fast --labels labels.npz

    Exit code: 0 done, 1 the video failed, 2 nothing could be done.

    Args:
        source: Video file.
        labels: Also write the label maps of all frames, as .npz.
    """
    from common_kernels.runtime.video.container import import_av

    import_av()
    _check_files(source, output.output, labels)
    setup = classes.setup(model, method, device.dtype)

    report = run_jobs(
        [Job(source, {"video": output.output, **({} if labels is None else {"labels": labels})})],
        _starter(setup, options, json=output.json),
        settings={**setup.settings(), "video": options},
        device=device.device,
        overwrite=output.overwrite,
        json=output.json,
        debug=output.debug,
    )
    if report.done and not output.json:
        setup.hint()
    return report.exit_code


def _check_files(source: Path, output: Path, labels: Path | None) -> None:
    """Refuse files that cannot be read or written before a model is loaded."""
    if output.suffix.lower() != ".mp4":
        raise ValueError(f"--output must be an .mp4 file, got {output}")
    if labels is not None and labels.suffix.lower() != ".npz":
        raise ValueError(f"--labels must be an .npz file, got {labels}")
    if not source.is_file():
        raise FileNotFoundError(f"{source} does not exist")
    if output.resolve() == source.resolve():
        raise ValueError(f"{output} is the video itself: give another name")


def _starter(setup: Setup, options: VideoOptions, *, json: bool) -> Callable[[str], Process]:
    """Return what loads the model on a device and gives the function that segments the video."""
    from itaclip.video import segment_video

    def start(place: str) -> Process:
        segmenter = setup.load(place)

        def segment_one(job: Job, on_progress: OnProgress) -> Mapping[str, object]:
            found = segment_video(
                segmenter,
                job.source,
                job.outputs["video"],
                options=options,
                labels=job.outputs.get("labels"),
                progress=lambda done, total: on_progress(done, total or done),
            )
            if not json:
                say(f"{job.outputs['video']}: {found.frames} frames")
            return {
                "frames": found.frames,
                "segmented": found.segmented,
                "cuts": found.cuts,
                "classes": {name: round(share, 5) for name, share in found.shares.items()},
            }

        return segment_one

    return start
