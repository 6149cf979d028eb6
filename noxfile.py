# SPDX-License-Identifier: Apache-2.0
"""The checks, builds and demonstrations of the house.

Package names after ``--`` narrow a session, and what else stands there goes to its tool:
``nox -s tests -- semanir -k window``. ``house`` names the tests of the tree itself, ``lab`` and
``shapeworld`` those of the recipes and of the world they train on.
Packages are the folders of ``packages/``; nothing here lists them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nox

ROOT = Path(__file__).parent
CONSTRAINTS = ROOT / "constraints.txt"
DIST = ROOT / "dist"
# one arithmetic thread per worker: two workers with two pools each would fight over two cores
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

NO_DEVICE = "not gpu and not interpret and not browser"

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "typecheck", "tests"]


@dataclass(frozen=True, slots=True)
class Room:
    """A folder with a ``pyproject.toml``: a package, or the lab.

    Attributes:
        folder: Path below the root.
        name: Name of the distribution.
        version: Static version.
        scripts: Commands it installs.
        extras: Optional dependencies, by name.
        groups: Dependency groups, by name.
        needs: Required distributions, without their versions; ours are among them.
    """

    folder: Path
    name: str
    version: str
    scripts: tuple[str, ...]
    extras: tuple[str, ...]
    groups: tuple[str, ...]
    needs: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Room:
        """Read one room from its ``pyproject.toml``."""
        table = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
        project = table["project"]
        return cls(
            folder=folder.relative_to(ROOT),
            name=project["name"],
            version=project["version"],
            scripts=tuple(project.get("scripts", ())),
            extras=tuple(project.get("optional-dependencies", ())),
            groups=tuple(table.get("dependency-groups", ())),
            needs=tuple(re.match(r"[\w.-]+", line)[0] for line in project.get("dependencies", ())),
        )

    @property
    def module(self) -> str:
        """Name to import."""
        return self.name.replace("-", "_")


PACKAGES = {
    room.name: room
    for room in map(Room.read, sorted(f.parent for f in ROOT.glob("packages/*/pyproject.toml")))
}
# never published: the recipes, and the world they train on
LAB = {room.name: room for room in map(Room.read, [ROOT / "lab", ROOT / "lab" / "shapeworld"])}


def split(session: nox.Session, *more: str) -> tuple[list[str], list[str]]:
    """Part the posargs into room names (all if none is given) and arguments of the tool."""
    known = [*PACKAGES, *more]
    names = [arg for arg in session.posargs if arg in known]
    return names or known, [arg for arg in session.posargs if arg not in known]


def install(
    session: nox.Session,
    rooms: Iterable[Room] = (),
    *,
    groups: Iterable[str] = (),
    tests: bool = False,
    extras: bool = False,
) -> None:
    """Install rooms in editable mode with the named groups of the root, inside the constraints.

    Args:
        session: Where to.
        rooms: What to install.
        groups: Dependency groups of the root ``pyproject.toml``.
        tests: Whether the rooms' own ``test`` groups come along.
        extras: Whether all optional dependencies of the rooms come along.
    """
    if session.venv_backend == "none":  # nox --no-venv: the caller's environment has it all
        return
    args = ["--constraint", str(CONSTRAINTS), "--build-constraint", str(CONSTRAINTS)]
    session.install(*args, *requirements(rooms, groups=groups, tests=tests, extras=extras))


def requirements(
    rooms: Iterable[Room], *, groups: Iterable[str] = (), tests: bool = False, extras: bool = False
) -> list[str]:
    """Spell rooms and groups as arguments of ``uv pip install``."""
    args: list[str] = []
    for room in rooms:
        suffix = f"[{','.join(room.extras)}]" if extras and room.extras else ""
        args += ["-e", f"{room.folder}{suffix}"]
        if tests and "test" in room.groups:
            args += ["--group", f"{room.folder / 'pyproject.toml'}:test"]
    for group in groups:
        args += ["--group", f"pyproject.toml:{group}"]
    return args


def pytest(
    session: nox.Session, folders: Iterable[Path], *args: str, codes: Sequence[int] = (0,), **env: str
) -> None:
    """Run pytest over those of the folders that exist."""
    found = [str(folder) for folder in folders if (ROOT / folder).is_dir()]
    if not found:
        session.error("no tests are there")
    session.run(
        "python",
        "-m",
        "pytest",
        *found,
        "--hypothesis-profile=ci",
        *args,
        env=ONE_THREAD | env,
        success_codes=codes,
    )


def rooms_of(names: Iterable[str]) -> list[Room]:
    """Look up rooms; ``house`` is none."""
    return [(PACKAGES | LAB)[name] for name in names if name != "house"]


@nox.session
def tests(session: nox.Session) -> None:
    """Every test that needs no GPU: the packages', the lab's and the house's."""
    names, args = split(session, *LAB, "house")
    install(session, [*PACKAGES.values(), *LAB.values()], groups=["house"], tests=True, extras=True)
    folders = [room.folder / "tests" for room in rooms_of(names)] + [Path("tests")] * ("house" in names)
    workers = str(max(1, min(8, os.cpu_count() or 1)))
    pytest(
        session,
        folders,
        "-m",
        NO_DEVICE,
        "-n",
        workers,
        "--dist",
        "worksteal",
        *args,
    )


@nox.session
def properties(session: nox.Session) -> None:
    """The property tests with fresh random examples instead of the fixed ones."""
    names, args = split(session)
    install(session, rooms_of(names), groups=["house"], tests=True, extras=True)
    folders = [room.folder / "tests" / "properties" for room in rooms_of(names)]
    pytest(
        session,
        folders,
        "--hypothesis-profile=default",
        "-m",
        NO_DEVICE,
        *args,
        codes=(0, 5),
    )


@nox.session
def interpret(session: nox.Session) -> None:
    """Triton kernels on the CPU, under Triton's interpreter."""
    names, args = split(session)
    install(session, rooms_of(names), groups=["house"], tests=True, extras=True)
    folders = [room.folder / "tests" for room in rooms_of(names)]
    pytest(session, folders, "-m", "interpret", *args, codes=(0, 5), TRITON_INTERPRET="1")


@nox.session
def gpu(session: nox.Session) -> None:
    """The tests that need a CUDA device; ``nox --no-venv -s gpu`` where everything is installed."""
    names, args = split(session)
    install(session, rooms_of(names), groups=["house"], tests=True, extras=True)
    pytest(session, [room.folder / "tests" for room in rooms_of(names)], "-m", "gpu", *args, codes=(0, 5))


@nox.session
def browser(session: nox.Session) -> None:
    """The pages in a headless chromium of the system: ``apt-get install chromium``."""
    names, args = split(session)
    rooms = [room for room in rooms_of(names) if (ROOT / room.folder / "tests" / "browser").is_dir()]
    if not rooms:
        session.skip("none of these has a page")
    install(session, rooms, groups=["house"], tests=True, extras=True)
    for room in rooms:  # each starts a browser of its own, which playwright allows once in a process
        pytest(session, [room.folder / "tests" / "browser"], "-m", "browser", *args)


@nox.session
def minimums(session: nox.Session) -> None:
    """The tests with the lowest direct dependencies that the packages declare.

    What these say of their own dependencies, which are new ones, is nobody's news.
    """
    names, args = split(session)
    rooms = rooms_of(names)
    session.install(
        "--resolution", "lowest-direct", *requirements(rooms, groups=["house"], tests=True, extras=True)
    )
    pytest(
        session,
        [room.folder / "tests" for room in rooms],
        "-m",
        NO_DEVICE,
        "-n",
        "2",
        "-W",
        "ignore::DeprecationWarning",
        *args,
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Style, spelling and the syntax of YAML, TOML and workflows; ``-- --fix`` repairs what it can."""
    fix = "--fix" in session.posargs
    install(session, groups=["lint"])
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")
    session.run("codespell", *tracked())
    workflows = sorted(str(f.relative_to(ROOT)) for f in ROOT.glob(".github/workflows/*.yml"))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run(
        "check-yaml", "--unsafe", *tracked("*.yml", "*.yaml", "*.cff")
    )  # mkdocs.yml names Python functions
    session.run("check-toml", *tracked("*.toml"))
    session.run("check-json", *tracked("*.json"))
    session.run("pyproject-fmt", *([] if fix else ["--check"]), *tracked("*pyproject.toml"))


def tracked(*patterns: str) -> list[str]:
    """List the text files that git knows and the disk holds, so that lint judges what will land."""
    # a clone may belong to another user than the one who tests it
    files = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run([*files, "--", *patterns], cwd=ROOT, check=True, capture_output=True, text=True)
    binary = {".safetensors", ".png", ".npz", ".jpg"}
    return [
        name
        for name in listed.stdout.split("\0")
        if name and (ROOT / name).is_file() and Path(name).suffix not in binary
    ]


@nox.session
def typecheck(session: nox.Session) -> None:
    """Pyright, strict, over the packages' sources."""
    names, args = split(session)
    install(session, PACKAGES.values(), groups=["typecheck"], extras=True)
    session.run("pyright", *args, *(str(PACKAGES[name].folder / "src") for name in names))


@nox.session
def docs(session: nox.Session) -> None:
    """The site, every warning an error; ``-- serve`` shows it while you write."""
    install(session, groups=["docs"])  # the interface is read from the sources, nothing is imported
    session.run("mkdocs", *(session.posargs or ["build", "--strict"]), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """Measured speed of the operators; arguments go to ``python -m common_kernels.bench``."""
    install(session, [PACKAGES["common-kernels"]], extras=True)
    session.run("python", "-m", "common_kernels.bench", *session.posargs)


@nox.session
def lab(session: nox.Session) -> None:
    """The recipes of the shipped models: ``nox -s lab -- --help``."""
    install(session, [*PACKAGES.values(), *LAB.values()], extras=True)
    session.run("python", "-m", "recipes", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """The main job of every package on its small model, bound into ``demo/index.html``."""
    names, args = split(session)
    rooms = [room for room in rooms_of(names) if room.scripts]
    install(session, rooms)
    figures = ROOT / "demo"
    figures.mkdir(exist_ok=True)
    for room in rooms:
        with (figures / f"{room.name}.json").open("w", encoding="utf-8") as out:
            session.run(room.scripts[0], "demo", "--json", *args, stdout=out, stderr=None)
        session.log(f"{room.name}: {(figures / f'{room.name}.json').read_text('utf-8').strip()}")
    session.run("python", "tools/demo_page.py", *(room.name for room in rooms))


@nox.session
def wheels(session: nox.Session) -> None:
    """Build wheels and sdists, check what is in them, and try each in an empty environment."""
    names, _ = split(session)
    rooms = rooms_of(names)
    for old in [*DIST.glob("*.whl"), *DIST.glob("*.tar.gz")]:
        old.unlink()
    for room in PACKAGES.values():  # all of them: a package is tried with the wheels of its siblings
        build = [
            "uv",
            "build",
            str(room.folder),
            "--out-dir",
            str(DIST),
            "--build-constraint",
            str(CONSTRAINTS),
        ]
        session.run(*build, "--quiet")
    session.run("python", "tools/check_wheels.py", "contents", *names)
    for room in rooms:
        venv = Path(session.create_tmp()).resolve() / room.name
        python = venv / ("Scripts" if os.name == "nt" else "bin") / "python"
        session.run("uv", "venv", "--quiet", "--clear", "--python", "python", str(venv))
        # our own wheels by path: the index may hold strangers of the same names
        ours = [room, *(PACKAGES[name] for name in room.needs if name in PACKAGES)]
        found = [str(next(DIST.glob(f"{one.module}-{one.version}-*.whl"))) for one in ours]
        where = ["--python", str(python), "--constraint", str(CONSTRAINTS)]
        with session.chdir(venv):  # outside the workspace, whose sources would shadow the wheels
            session.run("uv", "pip", "install", "--quiet", *where, *found)
            check = ROOT / "tools" / "check_wheels.py"
            session.run(
                str(python), "-I", str(check), "smoke", json.dumps([room.module, room.scripts]), external=True
            )


@nox.session
def constraints(session: nox.Session) -> None:
    """Rewrite constraints.txt for Python 3.11 to 3.13; ``-- --upgrade`` takes the newest versions."""
    rooms = [*PACKAGES.values(), *LAB.values()]
    args = ["--universal", "--python-version", "3.11.5", "--all-extras", "--no-annotate", "--quiet"]
    args += ["--custom-compile-command", "nox -s constraints", "--output-file", str(CONSTRAINTS)]
    for room in rooms:
        args += ["--no-emit-package", room.name, str(room.folder / "pyproject.toml")]
        if "test" in room.groups:
            args += ["--group", f"{room.folder / 'pyproject.toml'}:test"]
    for group in ("build", "docs", "house", "lint", "typecheck"):
        args += ["--group", f"pyproject.toml:{group}"]
    session.run("uv", "pip", "compile", *args, *session.posargs)
