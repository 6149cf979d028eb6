# SPDX-License-Identifier: Apache-2.0
import ast
import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from importlib.util import find_spec

import pytest

# what the public operators may not pull in: each is an extra, or slow, or needed by a command line only
NAMES = (
    "PIL accelerate av cv2 cyclopts diffusers huggingface_hub lightning matplotlib platformdirs png"
    " pytorch_lightning rich safetensors scipy skimage sklearn tifffile timm torch._dynamo torchmetrics"
    " torchvision transformers triton typer"
)
HEAVY = set(NAMES.split())
MODULES = packages_distributions()
LOADED = "import json, sys; __import__(sys.argv[1]); print(json.dumps(sorted(sys.modules)))"

STATE = """
import json, os, random, sys, warnings
import numpy, torch

def state():
    return {
        "default dtype": str(torch.get_default_dtype()),
        "torch seed": torch.get_rng_state().tolist(),
        "numpy seed": str(numpy.random.get_state()),
        "python seed": str(random.getstate()),
        "environment": dict(os.environ),
        "import path": list(sys.path),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "determinism": torch.are_deterministic_algorithms_enabled(),
    }

def watched(change):
    def call(*args, **options):
        if sys._getframe(1).f_globals.get("__name__", "").split(".")[0] == sys.argv[1]:
            filters.append(args)
        return change(*args, **options)
    return call

# what others do when they are imported is theirs: they are imported first, and their filters do not count
for name in sys.argv[2:]:
    __import__(name)
filters = []
warnings.filterwarnings = watched(warnings.filterwarnings)
warnings.simplefilter = watched(warnings.simplefilter)
loaded, before = set(sys.modules), state()
package = __import__(sys.argv[1])
for name in package.__all__:
    getattr(package, name)
after = state()
changed = [name for name in before if before[name] != after[name]] + filters
print(json.dumps({"changed": changed, "modules": sorted(set(sys.modules) - loaded)}))
"""


def run_probe(probe, *arguments):
    command = [sys.executable, "-c", probe, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def imported_names(file, root=None):
    """Yield every module that a file imports, at any depth, or names to ``import_module``."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and root:  # parents are banned: the folder of the file
            folder = ".".join(file.relative_to(root).parent.parts)
            yield from (f"{folder}.{node.module or alias.name}" for alias in node.names)
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


def mixed_imports(source):
    """List what the operators import of the runtime, and the runtime of the operators."""
    runtime = f"{source.name}.runtime"
    return [
        f"{file.relative_to(source)} imports {name}"
        for file in sorted(source.rglob("*.py"))
        for name in imported_names(file, source.parent)
        if name.split(".")[0] == source.name
        and (file.relative_to(source).parts[0] == "runtime") != f"{name}.".startswith(f"{runtime}.")
    ]


def dependencies_of(package):
    """Return the modules of the distributions that a package declares, without our own."""
    extras = package.project.get("optional-dependencies", {}).values()
    if package.module == "common_kernels":  # torch alone must do for the operators
        extras = ()
    declared = [line for lines in (package.project["dependencies"], *extras) for line in lines]
    names = {re.match(r"[\w.-]+", line)[0] for line in declared} - {"common-kernels"}
    spelled = {module: {name.replace("_", "-") for name in found} for module, found in MODULES.items()}
    found = {module for module, found in spelled.items() if names & found}
    return {module for module in found if find_spec(module)}  # some wheels name modules that they do not hold


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
    assert [
        s for file in adapters for s in strangers([file], {package.module, file.stem, "common_kernels"}, ours)
    ] == []


@pytest.mark.parametrize(
    "line",
    [
        "import recipes.restoration.conditions",
        "from semanir import SemanIR",
        "def f():\n import semanir",
        "import_module('semanir.cli')",
    ],
)
def test_the_import_rule_can_fail(tmp_path, line):
    file = tmp_path / "module.py"
    file.write_text(line)
    assert strangers([file], {"common_kernels"}, {"common_kernels", "semanir", "recipes"})


def test_operators_and_runtime_do_not_import_each_other(packages):
    [source] = [package.source for package in packages if package.module == "common_kernels"]
    assert list((source / "runtime").glob("*.py"))
    assert mixed_imports(source) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("ops/fuse.py", "from common_kernels.runtime.images import read_image"),
        ("ops/fuse.py", "def f():\n from common_kernels import runtime"),
        ("runtime/images.py", "from common_kernels import knn_attention"),
        ("runtime/images.py", "import common_kernels.ops.fuse"),
        ("__init__.py", "from .runtime import images"),
    ],
)
def test_the_rule_of_operators_and_runtime_can_fail(tmp_path, file, line):
    source = tmp_path / "common_kernels"
    for folder in ("ops", "runtime"):
        (source / folder).mkdir(parents=True)
    (source / "runtime" / "batch.py").write_text("from common_kernels.runtime import images")
    (source / "ops" / "api.py").write_text("from common_kernels.ops import fuse")
    assert mixed_imports(source) == []
    (source / file).write_text(line)
    assert len(mixed_imports(source)) == 1


def test_a_plain_import_loads_little(package):
    loaded = run_probe(LOADED, package.module)
    assert package.module in loaded
    assert sorted((HEAVY | {"torch", "numpy"}) & set(loaded)) == []


def test_public_names_change_no_global_state(package):
    """Every public name can be reached, and neither that nor the import changes the process."""
    report = run_probe(STATE, package.module, *sorted(dependencies_of(package)))
    assert package.module in report["modules"]
    assert report["changed"] == []
    if package.module == "common_kernels":  # the operators need torch alone
        assert sorted(HEAVY & set(report["modules"])) == []
