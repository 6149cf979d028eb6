# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from itaclip.evaluation.rows import RowStore


@pytest.fixture
def matrices():
    random = torch.Generator().manual_seed(0)
    return {name: torch.randint(0, 3, (4, 4), generator=random) for name in ("a", "b/c", "d")}


def test_round_trip_over_processes(tmp_path, matrices):
    for process, (name, matrix) in enumerate(matrices.items()):
        RowStore(tmp_path, 4, process).add(name, matrix)
    found, total = RowStore(tmp_path, 4).read(matrices)
    assert found == set(matrices)
    assert torch.equal(total, sum(matrices.values()))


def test_only_what_is_wanted_counts_and_only_once(tmp_path, matrices):
    for process in (0, 1):
        RowStore(tmp_path, 4, process).add("a", matrices["a"])
    RowStore(tmp_path, 4).add("d", matrices["d"])
    found, total = RowStore(tmp_path, 4).read(["a", "unseen"])
    assert found == {"a"}
    assert torch.equal(total, matrices["a"])


def test_empty_image_is_done_too(tmp_path):
    RowStore(tmp_path, 4).add("void", torch.zeros(4, 4, dtype=torch.int64))
    found, total = RowStore(tmp_path, 4).read(["void"])
    assert found == {"void"}
    assert total.sum() == 0


@pytest.mark.parametrize("kept", range(1, 40, 6))
def test_line_left_half_by_a_killed_process_is_passed_over(kept, tmp_path, matrices):
    RowStore(tmp_path, 4).add("a", matrices["a"])
    file = tmp_path / "rows-0.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:kept])
    RowStore(tmp_path, 4).add("d", matrices["d"])
    found, total = RowStore(tmp_path, 4).read(matrices)
    assert found == {"a", "d"}
    assert torch.equal(total, matrices["a"] + matrices["d"])


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "3",
        '{"image":"a"}',
        '{"image":"a","cells":[16],"pixels":[1]}',
        '{"image":"a","cells":[-1],"pixels":[1]}',
        '{"image":"a","cells":[1,2],"pixels":[1]}',
        '{"image":"a","cells":[1],"pixels":["x"]}',
        '{"image":7,"cells":[1],"pixels":[1]}',
        "\xff\xfe",
    ],
)
def test_foreign_lines_are_passed_over(line, tmp_path, caplog):
    (tmp_path / "rows-0.jsonl").write_text(line + "\n", encoding="latin-1")
    found, total = RowStore(tmp_path, 4).read(["a"])
    assert not found
    assert total.sum() == 0
    assert "cannot be used" in caplog.text


def test_clear_forgets_all_processes(tmp_path, matrices):
    for process in (0, 1):
        RowStore(tmp_path, 4, process).add("a", matrices["a"])
    RowStore(tmp_path, 4).clear()
    assert RowStore(tmp_path, 4).read(["a"])[0] == set()
