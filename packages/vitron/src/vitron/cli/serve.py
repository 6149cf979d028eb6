# SPDX-License-Identifier: Apache-2.0
"""``vitron serve``: the model behind OpenAI's interface."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from common_kernels.runtime.cli import say, warn
from cyclopts import Group, Parameter

from vitron.cli.network import api_key, batched, is_local, listen
from vitron.cli.options import OUTPUT, Address, ModelDevice, Specialists, load, require
from vitron.server.limits import Limits
from vitron.specialists.options import SpecialistOptions


@Parameter(name="*", group=Group("Limits", sort_key=4))
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits(Limits):
    """Limits of a server whose model generates messages in batches.

    Attributes:
        generations: Most messages generated at a time, in one batch; further requests wait.
    """

    generations: int = 8


def serve(
    *,
    model: str = "vitron-tiny",
    address: Address = Address(),
    limits: ServerLimits = ServerLimits(),
    specialists: Specialists = SpecialistOptions(),
    machine: ModelDevice = ModelDevice(),
    debug: Annotated[bool, Parameter(negative="", group=OUTPUT)] = False,
) -> None:
    """Serve a model with OpenAI's interface; Ctrl-C stops it.

    Clients must send the key in the environment variable of --api-key-env, if it is set. Without a key only
    this machine can connect.

    **Examples**

        vitron serve
        VITRON_API_KEY=secret vitron serve --host 0.0.0.0 --port 8080

    Args:
        model: Shipped name, folder, or hub id.
        debug: Traceback of an error instead of one sentence.
    """
    require("server", "fastapi", "uvicorn", "multipart")
    import uvicorn

    from vitron.server import create_app

    key = api_key(address)
    place = listen(address)
    vitron, registry = load(model, machine, specialists)
    name = model.rstrip("/")  # each model of `vitron fit` is in a folder called model
    app = create_app(
        batched(vitron, limits.generations),
        model=name,
        specialists=registry,
        limits=limits,
        api_key=key,
        hosts={"localhost", "127.0.0.1", "[::1]"} if is_local(address.host) else None,
    )
    host = f"[{address.host}]" if ":" in address.host else address.host
    with_key = "" if key is None else ", with a key"
    say(f"{name} at http://{host}:{place.getsockname()[1]}/v1{with_key}; Ctrl-C stops it")
    if vitron.notice is not None:
        warn(vitron.notice)
    config = uvicorn.Config(app, log_level="warning", ws="none", server_header=False)
    with place, suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[place])
