# SPDX-License-Identifier: Apache-2.0
"""Chromium of the system, without a window."""

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def chromium():
    known = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for found in map(shutil.which, known) if found), None)
    if path is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    # root in a container has no sandbox
    args = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=args)
        yield browser
        browser.close()
