# SPDX-License-Identifier: Apache-2.0
import logging

import pytest
from common_kernels.runtime.rows import RowStore, row_name

SETTINGS = {"model": "tiny", "size": 3}


def test_rows_of_all_processes_are_merged(tmp_path):
    first, second = (RowStore(tmp_path, settings=SETTINGS, rank=rank) for rank in (0, 1))
    first.append("a", {"psnr": 1.5})
    second.append("b", {"psnr": 2.5})
    second.append("a", {"psnr": 9.0})
    assert first.read() == {"a": {"psnr": 1.5}, "b": {"psnr": 2.5}}
    assert second.read(["b", "c"]) == {"b": {"psnr": 2.5}}


def test_rows_of_other_settings_neither_count_nor_are_lost(tmp_path):
    RowStore(tmp_path, settings=SETTINGS).append("a", {"x": 1})
    other = RowStore(tmp_path, settings={**SETTINGS, "size": 4})
    assert other.read() == {}
    other.append("a", {"x": 2})
    other.clear()
    assert other.read() == {}
    assert RowStore(tmp_path, settings=SETTINGS).read() == {"a": {"x": 1}}


@pytest.mark.parametrize("rest", [b'["b",{"x"', b"\xff\xfe", b'{"b": 1}\n', b"[1, {}]\n"])
def test_an_incomplete_line_costs_only_its_own_row(tmp_path, caplog, rest):
    store = RowStore(tmp_path, settings=SETTINGS)
    store.append("a", {"x": 1})
    with store.file.open("ab") as file:
        file.write(rest)
    again = RowStore(tmp_path, settings=SETTINGS)
    again.append("c", {"x": 3})
    with caplog.at_level(logging.WARNING):
        assert again.read() == {"a": {"x": 1}, "c": {"x": 3}}
    assert "incomplete line" in caplog.text


def test_clear_discards_the_rows_of_every_process(tmp_path):
    stores = [RowStore(tmp_path, settings=SETTINGS, rank=rank) for rank in (0, 1)]
    for store in stores:
        store.append(str(store.file), {})
    stores[0].clear()
    assert stores[1].read() == {}


def test_a_row_about_files_is_another_one_once_they_change(tmp_path):
    image, label = tmp_path / "a.png", tmp_path / "a.txt"
    image.write_bytes(b"one")
    before = row_name("a", image, label)
    assert before == row_name("a", image, label) != row_name("b", image, label)
    label.write_bytes(b"sky")
    after = row_name("a", image, label)
    image.write_bytes(b"two")
    assert len({before, after, row_name("a", image, label)}) == 3
