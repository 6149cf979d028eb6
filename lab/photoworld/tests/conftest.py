# SPDX-License-Identifier: Apache-2.0
import pytest
from photoworld.testing import fill


@pytest.fixture(scope="session")
def drawn_folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("photoworld"))


@pytest.fixture
def drawn_world(drawn_folder, monkeypatch):
    """A world of drawn pictures in the place of the fetched ones."""
    monkeypatch.setenv("PHOTOWORLD", str(drawn_folder))
    return drawn_folder
