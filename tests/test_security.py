# SPDX-License-Identifier: Apache-2.0
"""What SECURITY.md promises of the whole tree, and that each of its promises has a test."""

import ast
import re

import pytest
import yaml

# what would run code that somebody else wrote, or build objects of their choice
FORBIDDEN = {"eval", "exec", "pickle.load", "pickle.loads", "marshal.loads", "os.system"}
UNSAFE = {("trust_remote_code", True), ("use_safetensors", False), ("allow_pickle", True), ("shell", True)}
# calls that are safe with this argument alone
NEEDED = {"torch.load": ("weights_only", True)}


def dotted(node):
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(source):
    """List the calls of a source that run or build what they read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, options = dotted(node.func), {keyword.arg: keyword.value for keyword in node.keywords}
        values = {key: value.value for key, value in options.items() if isinstance(value, ast.Constant)}
        key, value = NEEDED.get(name, (None, None))
        if name in FORBIDDEN or (key and values.get(key) is not value) or UNSAFE & set(values.items()):
            found.append(f"{name}, line {node.lineno}")
    return found


def test_no_source_runs_what_it_reads(package):
    files = sorted(package.source.rglob("*.py"))
    assert files
    assert {str(file): found for file in files if (found := dangers(file.read_text("utf-8")))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "pickle.load(file)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "from_pretrained(name, use_safetensors=False)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_rule_can_fail(line):
    assert dangers(line)
    assert not dangers("model.eval(); torch.load(path, weights_only=True)")


def test_every_promise_names_tests_that_exist(root):
    rows = re.findall(r"^\| (?!input|---)(.+) \|$", (root / "SECURITY.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) > 6
    for row in rows:
        named = re.findall(r"`([\w/-]+\.py)::(\w+)`", row.rsplit("|", 1)[1])
        assert named, row
        for file, name in named:
            folder = root if file.startswith("tests/") else root / "packages"
            assert f"def {name}(" in (folder / file).read_text("utf-8"), f"{file}::{name}"


def test_actions_are_pinned(root):
    steps = []
    for file in sorted((root / ".github" / "workflows").glob("*.yml")):
        for job in yaml.safe_load(file.read_text("utf-8"))["jobs"].values():
            steps += [job] if "uses" in job else job["steps"]
    used = [step for step in steps if "uses" in step]
    assert len(used) > 20
    for step in used:
        assert step["uses"].startswith("$/") or re.search(r"@[0-9a-f]{40}$", step["uses"]), step
        if step["uses"].startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
