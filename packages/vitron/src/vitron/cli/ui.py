# SPDX-License-Identifier: Apache-2.0
"""``vitron ui``: the model behind a web page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from common_kernels.runtime.cli import say
from cyclopts import Parameter

from vitron.cli.network import api_key, batched, listen
from vitron.cli.options import OUTPUT, Address, ModelDevice, Specialists, load, require
from vitron.specialists.options import SpecialistOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class PageAddress(Address):
    """Address of the page.

    Attributes:
        port: Port; 0 is any free one.
    """

    port: int = 7860


def ui(
    *,
    model: str = "vitron-tiny",
    generations: int = 8,
    address: PageAddress = PageAddress(),
    specialists: Specialists = SpecialistOptions(),
    machine: ModelDevice = ModelDevice(),
    debug: Annotated[bool, Parameter(negative="", group=OUTPUT)] = False,
) -> None:
    """Serve a web page for conversations about images and videos; Ctrl-C stops it.

    For other machines a key is needed, as for vitron serve; the page asks for it as the password of the user
    vitron.

    **Examples**

        vitron ui
        vitron ui --port 7861 --model runs/calls/model

    Args:
        model: Shipped name, folder, or hub id.
        generations: Most messages generated at a time, in one batch; further visitors wait.
        debug: Traceback of an error instead of one sentence.
    """
    require("ui", "gradio")
    if generations < 1:
        raise ValueError(f"--generations must be at least 1, got {generations}")
    key = api_key(address)
    place = listen(address)
    vitron, registry = load(model, machine, specialists)
    port = place.getsockname()[1]
    place.close()

    from vitron.ui import launch

    name = Path(model).name
    say(f"{name} at http://{address.host}:{port}; Ctrl-C stops it")
    launch(
        batched(vitron, generations),
        specialists=registry,
        model=name,
        notice=vitron.notice,
        host=address.host,
        port=port,
        password=key,
        concurrent=generations,
    )
