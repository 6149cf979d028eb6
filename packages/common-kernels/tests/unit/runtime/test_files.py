# SPDX-License-Identifier: Apache-2.0
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from common_kernels.runtime import files
from safetensors.numpy import save_file


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def stop_half_way():
        with files.atomic_write(path) as file:
            file.write(b"half")
            assert path.read_text() == "old"
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]
    files.write_text(path, "new\r\n")
    assert path.read_bytes() == b"new\r\n"


def test_folders_are_created_and_the_suffix_is_kept(tmp_path):
    with files.atomic_path(tmp_path / "x" / "y" / "video.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert files.is_temporary(temporary)
        temporary.write_bytes(b"1")
    assert names(tmp_path / "x" / "y") == ["video.mp4"]


def test_a_long_name_stays_writable(tmp_path):
    path = tmp_path / ("ü" * 120 + ".png")  # 244 bytes of the 255 that file systems allow
    files.write_bytes(path, b"1")
    assert path.read_bytes() == b"1"


def test_a_symbolic_link_is_followed(tmp_path):
    target = tmp_path / "elsewhere" / "a.txt"
    files.write_text(target, "old")
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    files.write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="modes are of POSIX")
def test_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a", "x")
        with files.atomic_path(tmp_path / "b") as part:
            save_file({"x": np.zeros(1)}, part)
    finally:
        os.umask(before)
    # safetensors lets the owner alone read what it writes
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o640, 0o640]


def test_json_is_whole_or_nothing(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"name": "ü"})
    assert path.read_text("utf-8") == '{\n  "name": "ü"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"psnr": float("nan")})
    assert names(tmp_path) == ["a.json"]


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="file is a file, but a folder is needed"):
        files.write_text(tmp_path / "file" / "a.txt", "x")
    with pytest.raises(OSError, match="cannot be created"):
        files.make_folder(tmp_path / "file" / "deeper" / "still")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        files.write_text(tmp_path, "x")


def test_a_killed_process_leaves_the_old_file_and_its_rest_can_be_removed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = (
        "import os, sys\nfrom common_kernels.runtime.files import atomic_write\n"
        f"with atomic_write({str(path)!r}) as file:\n file.write(b'half'); file.flush(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2
    own = tmp_path / f".b.{os.getpid()}.part.txt"
    own.write_text("of a process that runs")
    (tmp_path / ".hidden.txt").write_text("of the user")
    assert files.remove_temporary_files(tmp_path) == 1
    assert names(tmp_path) == sorted([own.name, ".hidden.txt", "a.txt"])


def test_free_space_is_checked_where_the_file_will_be(tmp_path):
    files.check_free_space(tmp_path / "not" / "there", 1)
    with pytest.raises(files.FreeSpaceError, match=r"needs 1000\.0 TB, but only .* are free"):
        files.check_free_space(tmp_path / "not" / "there", 10**15)


@pytest.mark.parametrize(("number", "text"), [(0, "0 bytes"), (999, "999 bytes"), (2_500_000, "2.5 MB")])
def test_format_bytes(number, text):
    assert files.format_bytes(number) == text
