# SPDX-License-Identifier: Apache-2.0
"""Checks built wheels: what is inside (``contents``), and whether one works alone (``smoke``).

``contents NAME...`` opens ``dist/`` from the repository; ``tag TAG`` compares a release tag with the versions
there; ``smoke '["module", ["command"]]'`` runs inside an empty environment that holds one installed package.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILED = {".so", ".dylib", ".dll"}
MAX_BYTES = 40 << 20  # a wheel with its small models; far below what a package index takes


def project_of(name: str) -> dict[str, str]:
    """Return the ``[project]`` table of a package."""
    return tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text("utf-8"))["project"]


def check_wheel(name: str, wheel: Path) -> list[str]:
    """List what is wrong with a wheel: files that lack or should not be there, metadata, size."""
    project, module = project_of(name), name.replace("-", "_")
    source = ROOT / "packages" / name / "src"
    info = f"{module}-{project['version']}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        metadata = HeaderParser().parsestr(archive.read(f"{info}/METADATA").decode())
    wanted = {str(f.relative_to(source)) for f in (source / module).rglob("*") if f.is_file()}
    # an editable installation leaves its compiled library among the sources
    wanted = {f for f in wanted if "__pycache__" not in f and Path(f).suffix not in COMPILED}
    compiled = {f for f in held if Path(f).suffix in COMPILED}
    faults = [
        f"lacks {f}" for f in sorted((wanted | {f"{module}/py.typed", f"{info}/licenses/LICENSE"}) - held)
    ]
    faults += [f"holds {f}" for f in sorted(held - wanted - compiled) if not f.startswith(f"{info}/")]
    for key, value in {
        "Name": name,
        "Version": project["version"],
        "License-Expression": "Apache-2.0",
    }.items():
        if metadata[key] != value:
            faults.append(f"{key} is {metadata[key]!r}, expected {value!r}")
    if "-py3-none-" not in wheel.name or bool(compiled) == wheel.name.endswith("-any.whl"):
        faults.append("is neither pure Python nor of all Pythons on one platform")
    if not str(metadata.get_payload()).strip():
        faults.append("has no description")
    if wheel.stat().st_size > MAX_BYTES:
        faults.append(f"weighs {wheel.stat().st_size} bytes, more than {MAX_BYTES}")
    return faults


def check_sdist(name: str, sdist: Path) -> list[str]:
    """List the files that a source archive lacks."""
    with tarfile.open(sdist) as archive:
        held = {member.name.split("/", 1)[-1] for member in archive.getmembers()}
    wanted = (
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        f"src/{name.replace('-', '_')}/__init__.py",
    )
    return [f"lacks {file}" for file in wanted if file not in held]


def contents(names: list[str]) -> list[str]:
    """Check the archives of the named packages in ``dist/``."""
    faults: list[str] = []
    for name in names:
        stem = f"{name.replace('-', '_')}-{project_of(name)['version']}"
        for pattern, check in ((f"{stem}-py3-none-any.whl", check_wheel), (f"{stem}.tar.gz", check_sdist)):
            found = list((ROOT / "dist").glob(pattern))
            if len(found) == 1:
                faults += [f"{found[0].name} {fault}" for fault in check(name, found[0])]
            else:
                faults.append(f"dist/{pattern}: expected one file, found {len(found)}")
        for wheel in (ROOT / "dist").glob(f"{stem}-*.whl"):
            if not wheel.name.endswith("-any.whl"):  # with compiled kernels
                faults += [f"{wheel.name} {fault}" for fault in check_wheel(name, wheel)]
    return faults


def tag(names: list[str]) -> list[str]:
    """Check that a tag such as ``semanir-v0.2.0`` is the version of its package."""
    name, _, version = names[0].rpartition("-v")
    if not (ROOT / "packages" / name).is_dir() or not version:
        return [f"tag {names[0]} names no package: expected <package>-v<version>"]
    project = project_of(name)
    return (
        []
        if version == project["version"]
        else [f"tag {names[0]}, but pyproject.toml says {project['version']}"]
    )


def smoke(names: list[str]) -> list[str]:
    """Import the installed package and run its commands; no other package of ours may be installed."""
    module, scripts = json.loads(names[0])
    package = importlib.import_module(module)
    faults = [f"{module}.__version__ is empty"] if not package.__version__ else []
    faults += [
        f"{module}.{name} is in __all__ and missing" for name in package.__all__ if not hasattr(package, name)
    ]
    others = {path.name.replace("-", "_") for path in (ROOT / "packages").iterdir()}
    others = others - {module, "common_kernels"} | {"recipes", "shapeworld"}
    faults += [f"{name} is installed too" for name in sorted(others) if importlib.util.find_spec(name)]
    if importlib.util.find_spec(f"{module}.info"):
        has_library = any(f.suffix in COMPILED for f in Path(str(package.__file__)).parent.rglob("*"))
        native = importlib.import_module(f"{module}.info").describe()["native"]
        if native.startswith("yes") != has_library:
            faults.append(
                f"{module}.info says {native}, a compiled library is {'' if has_library else 'not '}there"
            )
    for script in scripts:
        with tempfile.TemporaryDirectory() as folder:
            faults += run_script(script, Path(folder))
    return faults


def run_script(script: str, folder: Path) -> list[str]:
    """Run the version, the help and the demo of a command."""
    faults: list[str] = []
    command = str(Path(sys.executable).parent / script)
    for args in (["--version"], ["--help"], ["demo", "-o", "results", "--json"]):
        shown = subprocess.run([command, *args], check=False, cwd=folder, stdout=subprocess.PIPE)
        if shown.returncode:
            faults.append(f"{script} {' '.join(args)} ended with exit code {shown.returncode}")
        elif "--json" in args:
            sys.stdout.write(f"{script} demo: {json.loads(shown.stdout)}\n")
    if not list((folder / "results").rglob("*.png")):
        faults.append(f"{script} demo wrote no image")
    return faults


def main() -> int:
    """Run the check that the first argument names; print the faults that it finds."""
    checks = {"contents": contents, "tag": tag, "smoke": smoke}
    if len(sys.argv) < 3 or sys.argv[1] not in checks:
        sys.stderr.write(f"usage: check_wheels.py {'|'.join(checks)} ARGUMENT...\n")
        return 2
    faults = checks[sys.argv[1]](sys.argv[2:])
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
