# SPDX-License-Identifier: Apache-2.0
"""What tools/release.py makes of a package before it is published."""

import runpy
from email.message import Message
from types import SimpleNamespace

import pytest

URL = "https://example.org/team/tree"


@pytest.fixture(scope="module")
def release(root):
    return SimpleNamespace(**runpy.run_path(str(root / "tools" / "release.py")))


def described(text="text"):
    held = Message()
    values = {"Name": "semanir", "Version": "0.1.0", "Author": "we", "Keywords": "a,b", "Summary": "s"}
    values |= {"License-Expression": "Apache-2.0", "Requires-Python": ">=3.11"}
    for key, value in values.items():
        held[key] = value
    for label in ("Changelog", "Documentation", "Source"):
        held["Project-URL"] = f"{label}, {URL}"
    held.set_payload(text)
    return held


def test_links_of_every_readme_become_absolute_and_exist(release, package):
    text = (package.folder / "README.md").read_text("utf-8")
    absolute = release.make_absolute(text, package.folder, URL, "v1")
    targets = [match["target"] for match in release.LINK.finditer(absolute)]
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []
    assert len(targets) == len(release.LINK.findall(text))


def test_images_links_and_folders_have_their_own_view(release, root):
    text = "![a](comparison.jpg) [b](index.md#the-parts) [c](../semanir) [d](https://a.org/b) [e](#here)"
    made = release.make_absolute(text, root / "docs" / "semanir", URL, "v1")
    assert made == (
        f"![a]({URL}/raw/v1/docs/semanir/comparison.jpg) [b]({URL}/blob/v1/docs/semanir/index.md#the-parts) "
        f"[c]({URL}/tree/v1/docs/semanir) [d](https://a.org/b) [e](#here)"
    )


def test_a_link_to_nothing_is_refused(release, root):
    with pytest.raises(FileNotFoundError, match=r"links to nosuch\.md"):
        release.make_absolute("[a](nosuch.md)", root / "docs", URL, "v1")


def test_the_metadata_of_an_archive_is_judged(release):
    project = {"name": "semanir", "version": "0.1.0"}
    assert release.list_faults(described(), project) == []
    assert release.list_faults(described(), project | {"version": "0.2.0"}) == ["holds semanir 0.1.0"]
    assert release.list_faults(described("[a](docs/a.md)"), project) == ["links to docs/a.md"]
    for key in ("Author", "Keywords"):
        held = described()
        del held[key]
        assert release.list_faults(held, project) == [f"{key} is missing"]
    held = described()
    del held["Project-URL"]
    assert len(release.list_faults(held, project)) == 3


def test_the_notes_of_a_release_are_the_top_of_the_changelog(release, package):
    version, text = release.top_of_changelog(package.name)
    assert version == package.project["version"]
    assert text.startswith("###")


def test_the_address_comes_from_the_environment(release, monkeypatch):
    monkeypatch.setenv("REPOSITORY_URL", f"{URL}/")
    assert release.repository_url() == URL
    monkeypatch.delenv("REPOSITORY_URL")
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/tree")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://example.org")
    assert release.repository_url() == URL
