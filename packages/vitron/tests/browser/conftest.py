# SPDX-License-Identifier: Apache-2.0
"""The page on a port, and Debian's chromium before it."""

import os
import shutil
import socket

import pytest


@pytest.fixture(scope="session")
def chromium():
    name = next(
        (name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None
    )
    if name is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        # a container's root user has no sandbox to offer
        args = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = started.chromium.launch(executable_path=shutil.which(name), args=args)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def open_site():
    """Returns a function that shows a page for a generator, and closes all pages at the end."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    from vitron.demo.painters import toy_registry
    from vitron.ui import launch

    pages = []

    def show(generator, **options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pages.append(
            launch(generator, specialists=toy_registry(), model="scripted", port=port, block=False, **options)
        )
        return f"http://127.0.0.1:{port}/"

    yield show
    for page in pages:
        page.close()


@pytest.fixture(scope="session")
def watched(scripted):
    """The generator behind the page, which keeps what it got."""
    return scripted()


@pytest.fixture(scope="session")
def site(open_site, watched):
    return open_site(watched, notice="trained on <nothing> alone")
