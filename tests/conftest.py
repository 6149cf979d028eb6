# SPDX-License-Identifier: Apache-2.0
"""What the tests of the repository share: the tree as git sees it, and its packages."""

import subprocess
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent


def read_package(folder):
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    module = project["name"].replace("-", "_")
    source = folder / "src" / module
    return SimpleNamespace(folder=folder, name=project["name"], module=module, source=source, project=project)


PACKAGES = [read_package(file.parent) for file in sorted(ROOT.glob("packages/*/pyproject.toml"))]


def pytest_generate_tests(metafunc):
    if "package" in metafunc.fixturenames:
        metafunc.parametrize("package", PACKAGES, ids=lambda package: package.name)


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def packages():
    return PACKAGES


@pytest.fixture(scope="session")
def tree():
    """Every file that would land: what git tracks, and what it neither tracks nor ignores."""
    # a clone may belong to another user than the one who tests it
    files = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(files, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]
