# SPDX-License-Identifier: Apache-2.0
"""No package is bound to one maker's devices, and each has tests for a GPU."""

import ast
import re

import pytest

# what Triton and its measurements need; what else must ask torch.accelerator
BOUND = re.compile(
    r"common_kernels/(bench/.*|ops/\w+/triton.*|_precision\.py|_triton\.py|info\.py|testing\.py|runtime/hub\.py)"
)


def names_cuda(source):
    """List the lines of a source that ask for CUDA by name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        is_text = isinstance(node, ast.Constant) and re.fullmatch(r"cuda(:\d+)?", str(node.value))
        if is_text or (isinstance(node, ast.Attribute) and node.attr == "cuda"):
            found.append(node.lineno)
    return found


def test_devices_are_those_of_torch(package):
    files = {
        file.relative_to(package.source.parent).as_posix(): file for file in package.source.rglob("*.py")
    }
    assert files
    bound = {
        name: names_cuda(file.read_text("utf-8")) for name, file in files.items() if not BOUND.match(name)
    }
    assert {name: lines for name, lines in bound.items() if lines} == {}


@pytest.mark.parametrize(
    "line", ["x.cuda()", "torch.cuda.synchronize()", 'x.to("cuda")', 'device = "cuda:1"']
)
def test_the_rule_of_devices_can_fail(line):
    assert names_cuda(line) == [1]
    assert not names_cuda("x.to(torch.accelerator.current_accelerator())")


@pytest.mark.parametrize("part", ["bfloat16", "float16", "peak_bytes|memory_allocated", r"\.compile\("])
def test_every_package_is_tested_on_a_gpu(package, part):
    """Half precision against single, a bound of memory, torch.compile."""
    files = sorted((package.folder / "tests" / "gpu").glob("test_*.py"))
    text = "\n".join(file.read_text("utf-8") for file in files)
    assert re.search(r"^def test_\w+\(.*\bdevice\b|mark\.gpu", text, re.MULTILINE)
    assert re.search(part, text)


def test_the_session_of_the_gpu_fails_where_nothing_is_collected(root):
    noxfile = ast.parse((root / "noxfile.py").read_text("utf-8"))
    [session] = [node for node in noxfile.body if isinstance(node, ast.FunctionDef) and node.name == "gpu"]
    [call] = [
        node for node in ast.walk(session)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "pytest"
    ]  # fmt: skip
    # pytest ends with 5 without tests; conftest.py stops a run without a device
    assert {keyword.arg for keyword in call.keywords} == {"REQUIRE_GPU"}
