# SPDX-License-Identifier: Apache-2.0
"""What a newcomer reads first."""

import re

import pytest
from diffeat.cli.app import app
from typer.main import get_command

COMMANDS = sorted(get_command(app).commands)


@pytest.fixture
def text(run):
    """The help of a command in one line, without its frame."""
    return lambda *args: " ".join(re.sub("[\u2500-\u257f]", " ", run(*args, "--help").stdout).split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_of_itself(text, command):
    assert f"Examples diffeat {command}" in text(command)
    assert f"diffeat {command}" in text()


@pytest.mark.parametrize(
    ("command", "words"),
    [("rank", '{"point": [x, y]}}'), ("match", '{"point": [x, y]}}'), ("view", "may be repeated. [pca]")],
)
def test_brackets_are_shown(text, command, words):
    assert words in text(command)


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("extract", "{MODEL} {IMAGES}..."),
        ("match", "{MODEL} {SOURCE} {TARGET}"),
        ("names", "{MODEL} [GLOB]..."),
        ("pck", "{MODEL} {ROOT}"),
        ("rank", "{MODEL} {PICTURES} {LABELS}"),
        ("segment", "{MODEL} [IMAGES]..."),
    ],
)
def test_arguments_are_called_by_the_names_that_the_help_explains(text, command, usage):
    assert f"Usage: root {command} [OPTIONS] {usage} " in text(command)
