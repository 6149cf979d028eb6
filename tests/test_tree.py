# SPDX-License-Identifier: Apache-2.0
import json
import os
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".json", ".txt", ".sh", ".cff", ".css", ""}
MODELS_AND_IMAGES = {".safetensors", ".png", ".npz", ".jpg"}
HOSTS = re.compile(r"p[y]pi\.org|pythonh[o]sted|registry\.np[m]js|deb\.debi[a]n")
PATHS = re.compile(r"/(wor[k]|far[m]|roo[t]|tm[p]|hom[e]|User[s])/[A-Za-z.]")


def faults(tree, pattern, root):
    return [
        f"{file.relative_to(root)}:{number}"
        for file in tree
        if file.suffix in TEXT
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_registry_host_is_named(tree, root):
    assert faults(tree, HOSTS, root) == []


def test_no_absolute_path_is_named(tree, root):
    assert faults(tree, PATHS, root) == []


def test_files_stay_readable_in_one_sitting(tree, root):
    lines = {str(f.relative_to(root)): f.read_bytes().count(b"\n") for f in tree if f.suffix == ".py"}
    assert {name: count for name, count in lines.items() if count > 500} == {}


def test_the_tree_is_small(tree, root):
    assert sum(file.stat().st_size for file in tree) < 55 << 20
    large = [str(f.relative_to(root)) for f in tree if f.stat().st_size > 1 << 20]
    assert [name for name in large if os.path.splitext(name)[1] not in MODELS_AND_IMAGES] == []


def test_every_python_file_names_its_licence(tree, root):
    line = "# SPDX-License-Identifier: Apache-2.0"
    bare = [
        str(f.relative_to(root))
        for f in tree
        if f.suffix == ".py" and not f.read_text("utf-8").startswith(line)
    ]
    assert bare == []


def test_licences_are_the_same_text(root, packages):
    licence = (root / "LICENSE").read_bytes()
    assert [p.name for p in packages if (p.folder / "LICENSE").read_bytes() != licence] == []


@pytest.mark.parametrize("kind", ["toml", "yaml", "json"])
def test_data_files_parse(tree, kind):
    def load_yaml(text):
        # mkdocs.yml names Python functions with a tag that the safe loader does not know
        class Loader(yaml.SafeLoader):
            pass

        Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
        return yaml.load(text, Loader)  # a subclass of the safe loader

    parsers = {"toml": tomllib.loads, "yaml": load_yaml, "json": json.loads}
    suffixes = {"toml": {".toml"}, "yaml": {".yml", ".yaml", ".cff"}, "json": {".json"}}[kind]
    files = [file for file in tree if file.suffix in suffixes]
    assert files
    for file in files:
        assert parsers[kind](file.read_text("utf-8")) is not None, file


def test_workflows_are_valid(root):
    files = sorted(map(str, root.glob(".github/workflows/*.yml")))
    assert files
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        *files,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_has_its_workflow(root, package):
    text = (root / ".github" / "workflows" / f"{package.name}.yml").read_text("utf-8")
    workflow = yaml.safe_load(text)
    triggers = workflow[True]  # YAML 1.1 reads the key "on" as a boolean
    for event in ("push", "pull_request"):
        assert f"packages/{package.name}/**" in triggers[event]["paths"]
        assert "packages/common-kernels/**" in triggers[event]["paths"]
    assert triggers["push"]["tags"] == [f"{package.name}-v*"]
    assert workflow["jobs"]["checks"]["with"]["package"] == package.name
    assert workflow["jobs"]["publish"]["needs"] == "checks"
    assert workflow["jobs"]["release"]["needs"] == "publish"


def test_a_workflow_watches_the_packages_that_its_own_can_call(root, packages, package):
    ours = {each.name for each in packages}
    extras = package.project.get("optional-dependencies", {}).values()
    lines = [*package.project.get("dependencies", ()), *(line for extra in extras for line in extra)]
    called = {Requirement(line).name for line in lines} & ours
    text = (root / ".github" / "workflows" / f"{package.name}.yml").read_text("utf-8")
    watched = yaml.safe_load(text)[True]["push"]["paths"]
    assert [name for name in called if f"packages/{name}/**" not in watched] == []


def test_what_a_release_needs_is_in_the_workflows(root):
    """Wheels are tried on three systems; a tag is attested, published without a key, and written about."""
    folder = root / ".github" / "workflows"
    jobs = yaml.safe_load((folder / "package.yml").read_text("utf-8"))["jobs"]
    systems = [name.split("-")[0] for name in jobs["wheels"]["strategy"]["matrix"]["os"]]
    assert systems == ["ubuntu", "macos", "windows"]
    for file in folder.glob("*.yml"):
        publish = yaml.safe_load(file.read_text("utf-8"))["jobs"].get("publish")
        if publish:
            used = [step["uses"].split("@")[0] for step in publish["steps"]]
            assert used[1:] == ["actions/attest-build-provenance", "pypa/gh-action-pypi-publish"]
            assert publish["permissions"] == {"id-token": "write", "attestations": "write"}
            assert "tools/release.py notes" in file.read_text("utf-8")
    assert "deploy" in yaml.safe_load((folder / "repository.yml").read_text("utf-8"))["jobs"]


def test_workflows_run_sessions_that_exist(root):
    noxfile = (root / "noxfile.py").read_text("utf-8")
    sessions = set(re.findall(r"^@nox\.session\ndef (\w+)", noxfile, re.MULTILINE))
    texts = [file.read_text("utf-8") for file in root.glob(".github/workflows/*.yml")]
    used = {name for text in texts for name in re.findall(r"nox -s (\w+)", text)}
    assert {"tests", "lint", "typecheck", "interpret", "wheels", "gpu"} <= used <= sessions


def test_ci_runs_the_second_command_of_the_readme(root):
    commands = re.findall(
        r"^pip install nox uv && nox -s (\w+)", (root / "README.md").read_text("utf-8"), re.MULTILINE
    )
    assert commands == ["demo", "tests"]
    script = root / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "pip install --quiet nox uv" in script.read_text("utf-8")
    assert "nox --session tests" in script.read_text("utf-8")


def test_pre_commit_uses_the_versions_of_the_constraints(root):
    held = dict(
        re.findall(r"^([a-z0-9-]+)==(\S+)", (root / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    )
    config = yaml.safe_load((root / ".pre-commit-config.yaml").read_text("utf-8"))
    names = {"ruff-pre-commit": "ruff"}
    remote = [repo for repo in config["repos"] if repo["repo"] != "local"]
    repos = {repo["repo"].rsplit("/", 1)[-1]: repo["rev"].removeprefix("v") for repo in remote}
    assert repos == {name: held[names.get(name, name)] for name in repos}
