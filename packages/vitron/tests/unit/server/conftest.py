# SPDX-License-Identifier: Apache-2.0
"""Servers to ask: in this process, and on a port."""

import socket
import threading
import time
from contextlib import contextmanager

import openai
import pytest
import uvicorn
from fastapi.testclient import TestClient
from vitron.server import create_app


@pytest.fixture
def ask(generator, specialists):
    """Return a function that makes a client of a new server."""

    def client(**options):
        return TestClient(
            create_app(options.pop("generator", generator), **({"specialists": specialists} | options)),
            raise_server_exceptions=False,
        )

    return client


@contextmanager
def served(app):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def serve():
    return served


@pytest.fixture
def official(generator, specialists):
    """The official client of OpenAI, before a real server with a key."""
    app = create_app(generator, specialists=specialists, api_key="right", hosts={"127.0.0.1"})
    options = {"api_key": "right", "max_retries": 0, "timeout": 30}
    with served(app) as url, openai.OpenAI(base_url=f"{url}/v1", **options) as client:
        yield client
