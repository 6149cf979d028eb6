# SPDX-License-Identifier: Apache-2.0
"""The strings were made by pycocotools 2.0.11."""

import numpy as np
import pytest
from vitron.protocol.rle import compress, decode_mask, decompress, encode_mask

ROWS, COLUMNS = np.mgrid[:9, :11]
DISC = (ROWS - 4) ** 2 + (COLUMNS - 5) ** 2 <= 12
DISC_RUNS = [21, 3, 5, 5, 3, 7, 2, 7, 2, 7, 3, 5, 5, 3, 21]
BIG = np.zeros((300, 500), dtype=bool)
BIG[40:200, 100:410] = True


@pytest.mark.parametrize(
    ("mask", "text"),
    [(DISC, "e0352N2O0001N2N`0"), (BIG, "hZm0P5\\4" + "0" * 617 + "`Zj0")],
    ids=["disc", "long runs"],
)
def test_strings_are_those_of_coco(mask, text):
    assert compress(encode_mask(mask)) == text
    assert np.array_equal(decode_mask(text, *mask.shape), mask)


def test_runs_go_down_the_columns_from_background():
    assert encode_mask(DISC) == DISC_RUNS
    assert encode_mask(np.ones((2, 2), dtype=bool)) == [0, 4]
    assert encode_mask(np.zeros((2, 2), dtype=bool)) == [4]
    assert np.array_equal(decode_mask([1, 1, 2], 2, 2), [[False, False], [True, False]])


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2], "add up to 2 x 2 = 4, none below 0, got 3"),
        ([6, -2], "none below 0"),
        ("P", "end within a number"),
        ("0 4", "from '0' to 'o', got ' '"),
        ("o" * 40, "number that is too long"),
        ("N", "which is not a length"),
    ],
)
def test_what_are_no_run_lengths_is_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        decode_mask(counts, 2, 2)


def test_an_empty_string_holds_no_run():
    assert decompress("") == []
