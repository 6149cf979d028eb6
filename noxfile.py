# SPDX-License-Identifier: Apache-2.0
"""The checks, builds and demos of this repository; ``nox -l`` lists them.

Names after ``--`` narrow a session to projects, and every other argument goes to the tool that it runs:
``nox -s tests -- semanir -k window``. ``repository`` names the tests of the whole tree, ``lab`` and
``shapeworld`` those of the recipes and of the world they train on.
Packages are the folders of ``packages/``; nothing here lists them.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nox
from packaging.requirements import Requirement

ROOT = Path(__file__).parent
CONSTRAINTS = ROOT / "constraints.txt"
DIST = ROOT / "dist"
DEMO = ROOT / "demo"
# one compute thread per worker: two workers with two pools each would fight over two cores; and bytecode is
# kept, or else each of the many processes that tests start would compile torch and transformers again
TEST_ENV = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
NO_DEVICE = "not gpu and not interpret and not browser"
# modules that are not called after their distributions, so that the check needs none of them installed
DEPTRY = [
    "--package-module-name-map",
    "open-clip-torch=open_clip,pillow=PIL,pypng=png,pyyaml=yaml,scikit-image=skimage,scikit-learn=sklearn",
]
NO_TESTS = 5  # exit code of pytest where the marker selects nothing

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "typecheck", "tests"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A folder with a ``pyproject.toml``: a package, the lab or its world.

    Attributes:
        folder: Path below the root.
        name: Name of the distribution.
        version: Static version.
        scripts: Commands that it installs.
        extras: Names of its optional dependencies.
        groups: Names of its dependency groups.
        dependencies: Names of the distributions that it requires, ours among them.
    """

    folder: Path
    name: str
    version: str
    scripts: tuple[str, ...]
    extras: tuple[str, ...]
    groups: tuple[str, ...]
    dependencies: tuple[str, ...]

    @classmethod
    def read(cls, file: Path) -> Project:
        """Read a ``pyproject.toml``."""
        content = nox.project.load_toml(file)
        table = content["project"]
        return cls(
            folder=file.parent.relative_to(ROOT),
            name=table["name"],
            version=table["version"],
            scripts=tuple(table.get("scripts", ())),
            extras=tuple(table.get("optional-dependencies", ())),
            groups=tuple(content.get("dependency-groups", ())),
            dependencies=tuple(Requirement(line).name for line in table.get("dependencies", ())),
        )

    @property
    def module(self) -> str:
        """Name to import."""
        return self.name.replace("-", "_")

    @property
    def tests(self) -> Path:
        """Folder of the tests."""
        return self.folder / "tests"


def read_projects(pattern: str) -> dict[str, Project]:
    """Read the projects whose ``pyproject.toml`` matches a pattern, by name."""
    projects = map(Project.read, sorted(ROOT.glob(pattern)))
    return {project.name: project for project in projects}


PACKAGES = read_projects("packages/*/pyproject.toml")
LAB = read_projects("lab/**/pyproject.toml")  # never published


def select(session: nox.Session, projects: dict[str, Project] = PACKAGES) -> tuple[list[Project], list[str]]:
    """Split the arguments after ``--`` into projects, all if none is named, and arguments of the tool."""
    named = [projects[argument] for argument in session.posargs if argument in projects]
    return named or list(projects.values()), [arg for arg in session.posargs if arg not in projects]


def requirements(projects: Iterable[Project], *groups: str, extras: bool) -> list[str]:
    """Return the arguments of ``uv pip install`` for editable projects and dependency groups of the root.

    Args:
        projects: What to install; with ``extras``, what each can use and tests need.
        groups: Dependency groups of the root ``pyproject.toml``.
        extras: Whether optional dependencies and ``test`` groups are installed.
    """
    args: list[str] = []
    for project in projects:
        names = ",".join(project.extras) if extras else ""
        args += ["-e", f"{project.folder}[{names}]" if names else str(project.folder)]
        if extras and "test" in project.groups:
            args += ["--group", f"{project.folder / 'pyproject.toml'}:test"]
    for group in groups:
        args += ["--group", f"pyproject.toml:{group}"]
    return args


def install(session: nox.Session, projects: Iterable[Project], *groups: str, extras: bool = True) -> None:
    """Install projects and dependency groups of the root at the versions of ``constraints.txt``."""
    if session.venv_backend != "none":  # nox --no-venv: the environment of the caller has everything
        held = ["--constraint", str(CONSTRAINTS), "--build-constraint", str(CONSTRAINTS)]
        session.install(*held, *requirements(projects, *groups, extras=extras))


def pytest(
    session: nox.Session,
    folders: Iterable[Path],
    marker: str,
    *args: str,
    codes: Sequence[int] = (0,),
    **env: str,
) -> None:
    """Run the tests with a marker in those of the folders that exist."""
    found = [str(folder) for folder in folders if (ROOT / folder).is_dir()]
    if not found:
        session.error("none of these projects has such tests")
    command = ["python", "-m", "pytest", *found, "-m", marker, "--hypothesis-profile=ci"]
    session.run(*command, *args, env=TEST_ENV | env, success_codes=codes)


@nox.session
def tests(session: nox.Session) -> None:
    """Run every test that needs no GPU; -- semanir -k tiles narrows it, -- repository tests the tree."""
    everything = PACKAGES | LAB
    args = [argument for argument in session.posargs if argument not in {*everything, "repository"}]
    named = [argument for argument in session.posargs if argument not in args] or [*everything, "repository"]
    install(session, everything.values(), "test")
    folders = [Path("tests") if name == "repository" else everything[name].tests for name in named]
    workers = str(min(8, os.cpu_count() or 1))
    pytest(session, folders, NO_DEVICE, "-n", workers, "--dist", "worksteal", *args)


@nox.session
def properties(session: nox.Session) -> None:
    """Run the property tests with fresh random examples instead of the fixed ones of the other sessions."""
    projects, args = select(session)
    install(session, projects, "test")
    folders = [project.tests / "properties" for project in projects]
    pytest(session, folders, NO_DEVICE, "--hypothesis-profile=default", *args, codes=(0, NO_TESTS))


@nox.session
def interpret(session: nox.Session) -> None:
    """Run the Triton kernels on the CPU, under Triton's interpreter."""
    projects, args = select(session)
    install(session, projects, "test")
    folders = [project.tests for project in projects]
    pytest(session, folders, "interpret", *args, codes=(0, NO_TESTS), TRITON_INTERPRET="1")


@nox.session
def gpu(session: nox.Session) -> None:
    """Run the tests that need a CUDA device; nox --no-venv -s gpu uses the environment you are in.

    Fails without such a device, and for a package that has no such test.
    """
    projects, args = select(session)
    install(session, projects, "test")
    for project in projects:
        pytest(session, [project.tests], "gpu", *args, REQUIRE_GPU="1")


@nox.session
def browser(session: nox.Session) -> None:
    """Open the web pages in a headless chromium of the system; install it with apt-get install chromium."""
    projects, args = select(session)
    projects = [project for project in projects if (ROOT / project.tests / "browser").is_dir()]
    if not projects:
        session.skip("none of these projects has a page")
    install(session, projects, "test")
    for project in projects:  # each starts a browser of its own, which playwright allows once in a process
        pytest(session, [project.tests / "browser"], "browser", *args)


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest direct dependencies that the packages declare."""
    projects, args = select(session)
    session.install("--resolution", "lowest-direct", *requirements(projects, "test", extras=True))
    # old releases meet new dependencies of theirs, and their deprecation warnings are not ours
    quiet = ["-W", "ignore::DeprecationWarning"]
    pytest(session, [project.tests for project in projects], NO_DEVICE, "-n", "2", *quiet, *args)


@nox.session
def latest(session: nox.Session) -> None:
    """Run the tests of one package with the newest release of everything it can use, without constraints."""
    projects, args = select(session)
    if len(projects) != 1:
        session.error(
            f"name one package, since some forbid what others allow: nox -s latest -- {projects[0].name}"
        )
    [project] = projects
    needed = [PACKAGES[name] for name in project.dependencies if name in PACKAGES]
    session.install("--upgrade", *requirements([*needed, project], "test", extras=True))
    pytest(session, [project.tests], NO_DEVICE, "-n", "2", *args)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, spelling and the syntax of YAML, TOML and workflows; -- --fix repairs what it can."""
    fix = "--fix" in session.posargs
    check = [] if fix else ["--check"]
    install(session, [], "lint")
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")
    session.run("ruff", "format", *check, ".")
    session.run("codespell", *tracked())
    session.run(
        "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *tracked(".github/workflows/*")
    )
    session.run("check-yaml", "--unsafe", *tracked("*.yml", "*.yaml", "*.cff"))  # mkdocs.yml names functions
    session.run("check-toml", *tracked("*.toml"))
    session.run("check-json", *tracked("*.json"))
    session.run("pyproject-fmt", *check, *tracked("*pyproject.toml"))
    session.run("zizmor", "--offline", "--no-progress", "--persona", "pedantic", ".github")
    for project in PACKAGES.values():  # what is imported is required, and what is required imported
        with session.chdir(project.folder):
            session.run("deptry", "src", *DEPTRY, "--known-first-party", project.module)


def tracked(*patterns: str) -> list[str]:
    """List the text files that git knows and the disk holds, so that lint checks what will land."""
    # a clone may belong to another user than the one who tests it
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    listed = subprocess.run([*command, "--", *patterns], cwd=ROOT, check=True, capture_output=True, text=True)
    binary = {".safetensors", ".png", ".npz", ".jpg", ".webp"}
    names = filter(None, listed.stdout.split("\0"))
    return [name for name in names if (ROOT / name).is_file() and Path(name).suffix not in binary]


@nox.session
def typecheck(session: nox.Session) -> None:
    """Run pyright, strict, over the sources of the packages."""
    projects, args = select(session)
    install(session, PACKAGES.values(), "typecheck")
    session.run("pyright", *args, *(str(project.folder / "src") for project in projects))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site, every warning an error; -- serve shows it while you write."""
    install(session, [], "docs")  # the API pages are read from the sources, nothing is imported
    session.run("python", "tools/notebooks.py", "pages")
    session.run("zensical", *(session.posargs or ["build", "--strict", "--clean"]))


@nox.session
def notebooks(session: nox.Session) -> None:
    """Execute the notebooks from the sources; -- --write semanir keeps the outputs of one."""
    install(session, PACKAGES.values(), "notebooks", extras=False)
    session.run("python", "tools/notebooks.py", "run", *session.posargs, env=TEST_ENV)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the speed of the operators and keep the results; -- --help lists the options.

    ``nox -s gpu bench`` is tests and measurements on a GPU; both take the names of packages.
    """
    _, args = select(session)
    kernels = PACKAGES["common-kernels"]
    install(session, [kernels])
    kept = ["--json", str(kernels.folder / "benchmarks" / "results")]
    session.run("python", "-m", "common_kernels.bench", *(args or kept))


@nox.session
def lab(session: nox.Session) -> None:
    """Train or evaluate a shipped model; -- --help lists the recipes."""
    install(session, [*PACKAGES.values(), *LAB.values()])
    session.run("python", "-m", "recipes", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the main job of every package on its small model; the results are bound into demo/index.html."""
    projects, args = select(session)
    projects = [project for project in projects if project.scripts]
    install(session, projects, extras=False)
    DEMO.mkdir(exist_ok=True)
    for project in projects:
        figures = DEMO / f"{project.name}.json"
        with figures.open("w", encoding="utf-8") as out:
            command = [project.scripts[0], "demo", "-o", str(DEMO / project.name), "--json"]
            session.run(*command, *args, stdout=out, stderr=None)
        session.log(f"{project.name}: {figures.read_text('utf-8').strip()}")
    session.run("python", "tools/demo_page.py", *(project.name for project in projects))


@nox.session
def wheels(session: nox.Session) -> None:
    """Build wheels and sdists, check what is in them, and try each in an empty environment."""
    projects, _ = select(session)
    for old in [*DIST.glob("*.whl"), *DIST.glob("*.tar.gz")]:
        old.unlink()
    for project in PACKAGES.values():  # all of them: a package is tried with the wheels that it requires
        build = ["uv", "build", str(project.folder), "--out-dir", str(DIST), "--quiet"]
        session.run(*build, "--build-constraint", str(CONSTRAINTS), env={"COMMON_KERNELS_NATIVE": "off"})
        if (ROOT / project.folder / "hatch_build.py").is_file():  # compiled too, where there is a compiler
            session.run(*build, "--wheel", "--build-constraint", str(CONSTRAINTS))
    check = str(ROOT / "tools" / "check_wheels.py")
    session.run("python", check, "contents", *(project.name for project in projects))
    for project, wheel in [(one, wheel) for one in projects for wheel in built_wheels(one)]:
        venv = Path(session.create_tmp()).resolve() / project.name
        python = str(venv / ("Scripts" if os.name == "nt" else "bin") / "python")
        session.run("uv", "venv", "--quiet", "--clear", "--python", "python", str(venv))
        # our own wheels by path: the index may hold strangers of the same names
        needed = (PACKAGES[name] for name in project.dependencies if name in PACKAGES)
        found = [str(wheel), *(str(built_wheels(one)[0]) for one in needed)]
        with session.chdir(venv):  # outside the workspace, whose sources would shadow the wheels
            where = ["--python", python, "--constraint", str(CONSTRAINTS)]
            session.run("uv", "pip", "install", "--quiet", *where, *found)
            smoke = json.dumps([project.module, project.scripts])
            session.run(python, "-I", check, "smoke", smoke, external=True)


def built_wheels(project: Project) -> list[Path]:
    """Return the wheels of a project in ``dist/``: the pure one, then those with compiled kernels."""
    found = DIST.glob(f"{project.module}-{project.version}-py3-none-*.whl")
    return sorted(found, key=lambda wheel: (not wheel.name.endswith("-any.whl"), wheel.name))


@nox.session
def release(session: nox.Session) -> None:
    """Build what is published of each package into release/<package>/dist, judge it, and say what is left."""
    projects, _ = select(session)
    install(session, [], "release")
    for project in projects:
        source, dist = (ROOT / "release" / project.name / folder for folder in ("source", "dist"))
        session.run("python", "tools/release.py", "prepare", project.name)
        build = ["uv", "build", str(source), "--out-dir", str(dist), "--quiet"]
        session.run(*build, "--build-constraint", str(CONSTRAINTS), env={"COMMON_KERNELS_NATIVE": "off"})
        archives = [str(file) for file in sorted(dist.glob(f"{project.module}-*"))]
        session.run("twine", "check", "--strict", *archives)
        # the maintainers are reached through the repository and not by mail, see SECURITY.md
        session.run("pyroma", "--min", "10", "--skip-tests", "AuthorEmail", str(source))
        session.run("python", "tools/release.py", "check", project.name)


@nox.session
def constraints(session: nox.Session) -> None:
    """Rewrite constraints.txt for Python 3.11 and newer; -- --upgrade takes the newest versions."""
    args = ["--universal", "--python-version", "3.11.5", "--all-extras", "--no-annotate", "--quiet"]
    args += ["--custom-compile-command", "nox -s constraints", "--output-file", str(CONSTRAINTS)]
    for project in [*PACKAGES.values(), *LAB.values()]:
        file = str(project.folder / "pyproject.toml")
        args += ["--no-emit-package", project.name, file]
        if "test" in project.groups:
            args += ["--group", f"{file}:test"]
    for group in nox.project.load_toml("pyproject.toml")["dependency-groups"]:
        args += ["--group", f"pyproject.toml:{group}"]
    session.run("uv", "pip", "compile", *args, *session.posargs)
