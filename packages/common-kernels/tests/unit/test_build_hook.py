# SPDX-License-Identifier: Apache-2.0
"""The hook that compiles the kernels when a wheel is built; a script stands for the compiler."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

FILE = Path(__file__).parents[2] / "hatch_build.py"
pytestmark = [
    pytest.mark.skipif(not FILE.is_file(), reason="the build hook is not part of this distribution"),
    pytest.mark.skipif(sys.platform == "win32", reason="the compiler is a script of a shell"),
]
COMPILER = """#!/bin/sh
echo "$@" >> "$0.log"
while [ "$1" != -o ]; do shift; done
echo library > "$2"
"""


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Return a function that runs the hook as a build does: its warnings and what it adds to the wheel."""
    spec = importlib.util.spec_from_file_location("hatch_build", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # an editable build writes beside the sources
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "src" / "common_kernels").mkdir(parents=True)

    def run(mode, *, version="standard", compiler=None):
        for name, value in {"COMMON_KERNELS_NATIVE": mode, "CXX": compiler}.items():
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, str(value))
        warnings, data = [], {"force_include": {}, "pure_python": True}
        app = SimpleNamespace(display_warning=warnings.append)
        hook = module.NativeHook(str(tmp_path), {}, None, None, str(tmp_path), "wheel", app)
        hook.initialize(version, data)
        data["contents"] = {Path(path).read_text() for path in data["force_include"]}
        hook.finalize(version, data, "")
        assert not [path for path in data["force_include"] if Path(path).exists()]
        return warnings, data

    run.module = module
    return run


@pytest.fixture
def compiler(tmp_path):
    """Return a compiler that writes its options down, and ``library`` into its output."""
    script = tmp_path / "c++"
    script.write_text(COMPILER)
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("mode", [None, "auto", "require"])
def test_the_library_goes_into_a_wheel_of_the_platform(build, compiler, mode):
    warnings, data = build(mode, compiler=compiler)
    assert warnings == []
    assert [*data["force_include"].values()] == [f"common_kernels/lib/{build.module.NAME}"]
    assert data["contents"] == {"library\n"}
    assert data["pure_python"] is False
    assert data["tag"] == f"py3-none-{build.module.platform_tag()}"
    lines = Path(f"{compiler}.log").read_text().splitlines()
    sources = [Path(line.split(" -o ")[0].split()[-1]) for line in lines[:-1]]
    assert {source.name for source in sources} == {"library.cpp", "kernels.cpp"}
    assert all(source.is_file() for source in sources)
    assert "-shared" in lines[-1], "all objects are linked last"


def test_only_x86_has_variants(build, compiler, monkeypatch):
    counts = {}
    for machine in ("x86_64", "AMD64", "aarch64", "arm64"):
        monkeypatch.setattr(build.module.platform, "machine", lambda machine=machine: machine)
        log = Path(f"{compiler}.log")
        log.unlink(missing_ok=True)
        build("require", compiler=compiler)
        counts[machine] = (log.read_text().count("kernels.cpp"), "-mavx2" in log.read_text())
    assert counts == {"x86_64": (3, True), "AMD64": (3, True), "aarch64": (1, False), "arm64": (1, False)}


def test_an_editable_installation_gets_it_beside_the_sources(build, compiler, tmp_path):
    _, data = build("require", compiler=compiler, version="editable")
    folder = tmp_path / "src" / "common_kernels" / "lib"
    assert [path.name for path in folder.iterdir()] == [build.module.NAME]
    assert data["force_include"] == {}


def test_off_builds_pure_python_and_calls_no_compiler(build, compiler):
    warnings, data = build("off", compiler=compiler)
    assert (warnings, data) == ([], {"force_include": {}, "pure_python": True, "contents": set()})
    assert not Path(f"{compiler}.log").exists()


def test_no_compiler(build, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    warnings, data = build("auto")
    assert [text for text in warnings if "no C++ compiler (g++ 12 or clang 15, or newer) on the path" in text]
    assert data["pure_python"]
    assert not data["force_include"]
    with pytest.raises(build.module.CannotBuildError, match="no C\\+\\+ compiler"):
        build("require")


@pytest.mark.parametrize("kind", ["missing", "broken"])
def test_a_compiler_that_fails(build, compiler, kind, tmp_path):
    reason = "cannot be run" if kind == "missing" else "unknown option"
    if kind == "missing":
        compiler = tmp_path / "nowhere"
    else:
        compiler.write_text("#!/bin/sh\necho unknown option >&2\nexit 1\n")
    warnings, data = build("auto", compiler=compiler)
    assert reason in warnings[0]
    assert data["pure_python"]
    assert not data["force_include"]
    with pytest.raises(build.module.CannotBuildError, match=reason):
        build("require", compiler=compiler)


def test_another_word_is_refused(build):
    with pytest.raises(ValueError, match="must be auto, require or off, got 'yes'"):
        build("yes")
