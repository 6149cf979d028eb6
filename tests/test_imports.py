# SPDX-License-Identifier: Apache-2.0
import ast
import json
import subprocess
import sys

import pytest

# what a plain import may not pull in: each is an extra, or slow, or needed by the command line only
HEAVY = (
    "cv2 diffusers lightning matplotlib pytorch_lightning rich scipy skimage sklearn tifffile timm"
    " torch._dynamo torchmetrics torchvision transformers triton typer"
)

PROBE = """
import json, os, sys, warnings
import random
import numpy, torch

def state():
    return {
        "default dtype": str(torch.get_default_dtype()),
        "torch seed": torch.get_rng_state().tolist(),
        "numpy seed": str(numpy.random.get_state()),
        "python seed": str(random.getstate()),
        "environment": dict(os.environ),
        "warning filters": [str(entry) for entry in warnings.filters],
        "import path": list(sys.path),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "determinism": torch.are_deterministic_algorithms_enabled(),
    }

modules, before = set(sys.modules), state()
__import__(sys.argv[1])
after = state()
changed = [name for name in before if before[name] != after[name]]
print(json.dumps({"changed": changed, "modules": sorted(set(sys.modules) - modules)}))
"""


def imported_names(file):
    """Yield every module that a file imports, at any depth, or names to ``import_module``."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                yield str(node.args[0].value)


def strangers(files, allowed, ours):
    return [
        f"{file.name} imports {name}"
        for file in files
        for name in imported_names(file)
        if name.split(".")[0] in ours - allowed
    ]


@pytest.fixture(scope="module")
def ours(root, packages):
    lab = {path.stem for path in (root / "lab").iterdir() if (path / "__init__.py").is_file()}
    assert lab, "the lab holds no module: the rule below would check nothing"
    return lab | {package.module for package in packages}


def test_import_direction(package, ours):
    files = sorted(package.source.rglob("*.py"))
    assert files
    # an adapter of vitron imports the one package that it is called after, when it is loaded
    adapters = [file for file in files if file.parent.name == "adapters" and package.module == "vitron"]
    others = [file for file in files if file not in adapters]
    assert strangers(others, {package.module, "common_kernels"}, ours) == []
    assert [s for file in adapters for s in strangers([file], {package.module, file.stem}, ours)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import recipes.tiny_denoise.gate",
        "from semanir import SemanIR",
        "def f():\n import semanir",
        "import_module('semanir.cli')",
    ],
)
def test_the_import_rule_can_fail(tmp_path, line):
    file = tmp_path / "module.py"
    file.write_text(line)
    assert strangers([file], {"common_kernels"}, {"common_kernels", "semanir", "recipes"})


def test_import_is_clean(package):
    command = [sys.executable, "-c", PROBE, package.module]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert package.module in report["modules"]
    assert sorted(set(HEAVY.split()) & set(report["modules"])) == []
    assert report["changed"] == []
