# SPDX-License-Identifier: Apache-2.0
import pytest
from common_kernels.runtime.records import ResultRecord


@pytest.fixture
def outputs(tmp_path):
    return [tmp_path / "out" / "a.png", tmp_path / "out" / "a.html"]


def write(outputs):
    for path in outputs:
        path.write_text("x")


def test_a_result_is_done_if_it_is_whole_and_of_the_same_settings(outputs):
    record = ResultRecord(outputs)
    assert not record.is_done("1")
    record.begin("1")
    write(outputs)
    assert not record.is_done("1")
    record.complete("1")
    assert ResultRecord(outputs).is_done("1")
    assert not record.is_done("2")
    outputs[1].unlink()
    assert not record.is_done("1")


def test_files_of_others_are_named(outputs):
    record = ResultRecord(outputs)
    outputs[0].parent.mkdir()
    write(outputs[1:])
    with pytest.raises(FileExistsError, match=r"a\.html exists and is not a result of an earlier run"):
        record.is_done("1")
    record.begin("1")  # as with --overwrite
    assert not record.is_done("1")


def test_nothing_stays_where_there_is_no_result(outputs, tmp_path):
    record = ResultRecord(outputs)
    record.begin("1")
    record.discard_if_empty()
    assert list(tmp_path.iterdir()) == []
    record.begin("1")
    write(outputs[:1])
    record.discard_if_empty()
    assert record.file.is_file()
