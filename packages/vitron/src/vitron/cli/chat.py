# SPDX-License-Identifier: Apache-2.0
"""``vitron chat``: a conversation in the terminal, or line by line through a pipe."""

from __future__ import annotations

import sys
from pathlib import Path

from common_kernels.runtime.cli import OutputPath, Report, warn

from vitron.cli.options import ModelDevice, Sampling, Specialists, VideoFormat, load
from vitron.protocol.sampling import SamplingParams
from vitron.specialists.options import SpecialistOptions


def chat(
    inputs: list[Path] | None = None,
    /,
    *,
    model: str = "vitron-tiny",
    sampling: Sampling = SamplingParams(),
    specialists: Specialists = SpecialistOptions(),
    machine: ModelDevice = ModelDevice(),
    output: OutputPath = Path("vitron-chat"),
    video_format: VideoFormat = "mp4",
    report: Report = Report(),
) -> int:
    """Hold a conversation with a model; results are written into a folder.

    With --json each line of stdin is a user message: plain text, or an object with text, images and videos
    (lists of paths) and regions; each assistant message is one JSON object on stdout. Exit
    code 1 if a line could not be answered.

    **Examples**

        vitron chat photo.png
        echo "draw a red star" | vitron chat --json

    Args:
        inputs: Images or videos of the first message.
        model: Shipped name, folder, or hub id.
        output: Folder of the results; if it holds files, a new folder beside it.
        video_format: Format of videos among the results.
    """
    from vitron.cli.results import read_input
    from vitron.cli.terminal import Pipe, Terminal
    from vitron.session import Conversation

    media = [read_input(path) for path in inputs or []]
    generator, registry = load(model, machine, specialists)
    if generator.notice is not None:
        warn(generator.notice)
    conversation = Conversation(generator, specialists=registry)
    if report.json:
        return Pipe(conversation, sampling, output, media, video_format).run(sys.stdin)
    Terminal(conversation, sampling, output, media, video_format).run(model)
    return 0
