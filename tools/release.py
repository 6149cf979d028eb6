# SPDX-License-Identifier: Apache-2.0
"""Makes what is published of a package, and says what is left to do.

``prepare NAME`` copies the package to ``release/NAME/source``: links of its README become absolute, URLs of
the repository enter its metadata, and the top heading of its changelog gets the date. ``check NAME`` judges
the archives that were built from it in ``release/NAME/dist``. ``notes NAME`` prints the top of the changelog.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from datetime import UTC, datetime
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / "release"
# where neither the environment nor a remote says where the repository lies: a dry run on somebody's machine
UNKNOWN = "https://example.invalid/repository"
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^## (\d+\.\d+\.\d+)( - (\d{4}-\d\d-\d\d|unreleased))?$", re.MULTILINE)
REQUIRED = ("Author", "Keywords", "Summary", "License-Expression", "Requires-Python")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.so", "*.dylib", "*.dll")


def repository_url() -> str:
    """Return the address of the repository: ``REPOSITORY_URL``, that of the workflow, or of the remote."""
    if url := os.environ.get("REPOSITORY_URL"):
        return url.rstrip("/")
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}"
    command = ["git", "-c", "safe.directory=*", "remote", "get-url", "origin"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    remote = re.fullmatch(r"(?:https://|git@)(github\.com)[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?", found)
    return f"https://{remote[1]}/{remote[2]}" if remote else UNKNOWN


def make_absolute(text: str, folder: Path, url: str, ref: str) -> str:
    """Make the links of a Markdown text absolute.

    Args:
        text: Markdown.
        folder: Folder of the text; links are relative to it.
        url: Address of the repository.
        ref: Tag or branch that the links name.

    Raises:
        FileNotFoundError: If a link names a file that does not exist.
    """

    def replace(match: re.Match[str]) -> str:
        target, _, anchor = match["target"].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        file = (folder / target).resolve()
        if not file.exists():
            raise FileNotFoundError(f"{folder.name}/README.md links to {target}, which does not exist")
        view = "raw" if match["image"] else "tree" if file.is_dir() else "blob"
        place = f"{url}/{view}/{ref}/{file.relative_to(ROOT).as_posix()}{'#' * bool(anchor)}{anchor}"
        return f"{match['image']}[{match['text']}]({place})"

    return LINK.sub(replace, text)


def prepare(name: str) -> None:
    """Copy a package to ``release/NAME/source``, ready to be built."""
    folder, target = ROOT / "packages" / name, RELEASE / name / "source"
    shutil.rmtree(RELEASE / name, ignore_errors=True)
    shutil.copytree(folder, target, ignore=LEFT_OUT)
    url, ref = repository_url(), f"{name}-v{read_project(folder)['version']}"
    readme = make_absolute((folder / "README.md").read_text("utf-8"), folder, url, ref)
    (target / "README.md").write_text(readme, "utf-8")
    changes = (folder / "CHANGELOG.md").read_text("utf-8")
    dated = changes.replace(" - unreleased\n", f" - {datetime.now(UTC):%Y-%m-%d}\n", 1)
    (target / "CHANGELOG.md").write_text(dated, "utf-8")
    pages = {
        "Changelog": f"{url}/blob/{ref}/packages/{name}/CHANGELOG.md",
        "Documentation": f"{url}/tree/{ref}/docs/{name}",
        "Issues": f"{url}/issues",
        "Source": f"{url}/tree/{ref}/packages/{name}",
    }
    with (target / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write("\n[project.urls]\n" + "".join(f'{key} = "{value}"\n' for key, value in pages.items()))


def read_project(folder: Path) -> dict[str, str]:
    """Return the ``[project]`` table of a folder."""
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]


def read_metadata(archive: Path) -> Message:
    """Return the metadata of a wheel or a source archive."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            [file] = [each for each in wheel.namelist() if each.endswith(".dist-info/METADATA")]
            return HeaderParser().parsestr(wheel.read(file).decode())
    with tarfile.open(archive) as sdist:
        content = sdist.extractfile(f"{archive.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert content is not None
        return HeaderParser().parsestr(content.read().decode())


def list_faults(metadata: Message, project: dict[str, str]) -> list[str]:
    """List what is missing or wrong in the metadata of an archive."""
    faults = [f"{key} is missing" for key in REQUIRED if not metadata[key]]
    if (metadata["Name"], metadata["Version"]) != (project["name"], project["version"]):
        faults.append(f"holds {metadata['Name']} {metadata['Version']}")
    labels = {url.split(",")[0] for url in metadata.get_all("Project-URL", [])}
    faults += [f"has no URL {label}" for label in sorted({"Changelog", "Documentation", "Source"} - labels)]
    description = str(metadata.get_payload())
    links = [match["target"] for match in LINK.finditer(description)]
    faults += [f"links to {link}" for link in links if not re.match(r"(https:|#)", link)]
    return faults


def check(name: str) -> list[str]:
    """List what is wrong with the archives of a package in ``release/NAME/dist``."""
    project = read_project(ROOT / "packages" / name)
    archives = sorted([*(RELEASE / name / "dist").glob("*.whl"), *(RELEASE / name / "dist").glob("*.tar.gz")])
    faults = [] if len(archives) == 2 else [f"expected a wheel and a source archive, found {len(archives)}"]
    for archive in archives:
        faults += [f"{archive.name} {fault}" for fault in list_faults(read_metadata(archive), project)]
    version, text = top_of_changelog(name)
    if version != project["version"]:
        faults.append(f"CHANGELOG.md begins with {version}, pyproject.toml says {project['version']}")
    if not text:
        faults.append("CHANGELOG.md says nothing of this version")
    return faults


def top_of_changelog(name: str) -> tuple[str, str]:
    """Return the newest version in the changelog of a package, and what is said of it."""
    text = (ROOT / "packages" / name / "CHANGELOG.md").read_text("utf-8")
    headings = list(HEADING.finditer(text))
    if not headings:
        return "no version", ""
    end = headings[1].start() if len(headings) > 1 else len(text)
    return headings[0][1], text[headings[0].end() : end].strip()


def left_to_do(name: str) -> str:
    """Return the commands that publish a package that passed the checks."""
    lines = [] if repository_url() != UNKNOWN else ["export REPOSITORY_URL=<address of the repository>"]
    tag = f"{name}-v{read_project(ROOT / 'packages' / name)['version']}"
    return "\n".join(["What is left:", *lines, f"git tag {tag} && git push origin {tag}"]) + "\n"


def main() -> int:
    """Run the step that the first argument names for the package of the second."""
    steps = ("prepare", "check", "notes")
    names = [path.parent.name for path in ROOT.glob("packages/*/pyproject.toml")]
    if len(sys.argv) != 3 or sys.argv[1] not in steps or sys.argv[2] not in names:
        sys.stderr.write(f"usage: release.py {'|'.join(steps)} {'|'.join(sorted(names))}\n")
        return 2
    step, name = sys.argv[1:]
    if step == "prepare":
        prepare(name)
    elif step == "notes":
        sys.stdout.write(top_of_changelog(name)[1] + "\n")
    elif faults := check(name):
        sys.stderr.write("".join(f"{fault}\n" for fault in faults))
        return 1
    else:
        sys.stdout.write(left_to_do(name))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
