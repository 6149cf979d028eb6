# SPDX-License-Identifier: Apache-2.0
"""``vitron serve`` and ``vitron ui``: the same model, for programs and for people."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from vitron.cli.model import (
    LOOPBACK,
    Device,
    Dtype,
    Host,
    KeyEnv,
    Memory,
    Model,
    Prefer,
    Timeout,
    bound,
    load,
    require,
)
from vitron.cli.output import Debug, say, user_errors

if TYPE_CHECKING:
    from vitron.model.batching import Batcher
    from vitron.model.engine import Vitron

Concurrent = Annotated[
    int, typer.Option(min=1, help="Replies that are written at a time, in one batch; more wait in line.")
]


def serve(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    model: Model = "vitron-tiny",
    api_key_env: KeyEnv = "VITRON_API_KEY",
    concurrent: Concurrent = 8,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest reply.")] = 1024,
    timeout: Timeout = 120.0,
    memory: Memory = None,
    prefer: Prefer = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    debug: Debug = False,
) -> None:
    """Serve a model in the shape of OpenAI's interface; Ctrl-C ends it.

    Clients must say the key that stands in the environment variable of --api-key-env, if it is set. Without a
    key nobody but this machine is served.

    [bold]Examples[/bold]

      vitron serve

      VITRON_API_KEY=secret vitron serve --host 0.0.0.0 --port 8080
    """
    with user_errors(debug):
        require("server", "fastapi", "uvicorn", "multipart")
        import uvicorn

        from vitron.server import Limits, create_app

        key = _key(api_key_env, host)
        place = _listen(host, port)
        replier, specialists = load(model, device, dtype)
        name = os.path.basename(os.path.normpath(model))
        app = create_app(
            _batched(replier, concurrent),
            model=name,
            specialists=bound(specialists, timeout, memory, prefer),
            limits=Limits(generations=concurrent, max_new_tokens=max_tokens),
            api_key=key,
            hosts={"localhost", "127.0.0.1", "[::1]"} if host in LOOPBACK else None,
        )
        port = place.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        say(f"{name} at http://{shown}:{port}/v1{'' if key is None else ', with a key'}; Ctrl-C ends it")
        config = uvicorn.Config(app, log_level="warning", ws="none", server_header=False)
        with place, suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[place])


def _batched(vitron: Vitron, concurrent: int) -> Batcher | Vitron:
    """Return what writes so many replies at a time."""
    from vitron.model.batching import Batcher

    return Batcher(vitron, rows=concurrent) if concurrent > 1 else vitron


def _key(variable: str, host: str) -> str | None:
    """Return the API key.

    Raises:
        ValueError: If there is none and the server would listen to other machines.
    """
    key = os.environ.get(variable, "").strip() or None
    if key is None and host not in LOOPBACK:
        raise ValueError(f"{host} is open to other machines: put a key into the environment as {variable}")
    return key


def _listen(host: str, port: int) -> socket.socket:
    """Take a port before the model is loaded, so that a wrong one is said at once.

    Raises:
        ValueError: If it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM)
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind((host, port))
    except OSError as error:
        place.close()
        raise ValueError(f"port {port} of {host} cannot be used: {error.strerror or error}") from error
    return place


def ui(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 7860,
    model: Model = "vitron-tiny",
    api_key_env: KeyEnv = "VITRON_API_KEY",
    concurrent: Concurrent = 8,
    timeout: Timeout = 120.0,
    memory: Memory = None,
    prefer: Prefer = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    debug: Debug = False,
) -> None:
    """Show a page to talk to a model, and to draw on pictures; Ctrl-C ends it.

    For other machines a key is needed, as for vitron serve; the page asks for it as the password of the user
    vitron.

    [bold]Example[/bold]

      vitron ui --port 7860
    """
    with user_errors(debug):
        require("ui", "gradio")
        key = _key(api_key_env, host)
        place = _listen(host, port)
        replier, specialists = load(model, device, dtype)
        port = place.getsockname()[1]
        place.close()

        from vitron.ui import launch

        name = os.path.basename(os.path.normpath(model))
        say(f"{name} at http://{host}:{port}; Ctrl-C ends it")
        launch(
            _batched(replier, concurrent),
            specialists=bound(specialists, timeout, memory, prefer),
            model=name,
            host=host,
            port=port,
            password=key,
            concurrent=concurrent,
        )
