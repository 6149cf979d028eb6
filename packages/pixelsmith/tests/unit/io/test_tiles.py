# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from pixelsmith.io.tiles import Tiling, cut_axis, sample_windows


@pytest.mark.parametrize("slack", [0, 2])
@pytest.mark.parametrize("side", [1, 7, 20, 21, 22, 23, 64, 65])
def test_tiles_keep_every_cell_once(side, slack):
    spans = cut_axis(side, Tiling(tile=12, halo=4), slack)
    kept = [cell for span in spans for cell in range(span.keep_start, span.keep_stop)]
    assert kept == list(range(side))
    assert (len(spans) == 1) == (side <= 20 + slack)
    for span in spans:
        # with its halo, as far as there is an image
        reach = (span.keep_start - span.start, span.stop - span.keep_stop)
        assert reach == (min(4, span.keep_start), min(4, side - span.keep_stop))


@pytest.mark.parametrize("size", [(64, 64), (40, 333), (500, 31), (9, 400)])
@pytest.mark.parametrize("samples", [1, 16, 32])
def test_windows_are_alike_apart_and_reach_the_borders(size, samples):
    windows = sample_windows(size, Tiling(tile=20, halo=6, samples=samples))
    assert 1 <= len(windows) <= samples
    assert len({(row.stop - row.start, column.stop - column.start) for row, column in windows}) == 1
    seen = np.zeros(size, dtype=int)
    for row, column in windows:
        rows, columns = (range(span.keep_start, span.keep_stop) for span in (row, column))
        assert len(rows) > 0 < len(columns)
        seen[np.ix_(rows, columns)] += 1
    assert seen.max() == 1
    if samples > 1:
        for axis in (0, 1):
            if size[axis] > 16:
                touched = np.flatnonzero(seen.any(axis=1 - axis))
                assert (touched[0], touched[-1]) == (0, size[axis] - 1)


def test_small_images_are_one_window():
    ((row, column),) = sample_windows((46, 44), Tiling(tile=20, halo=6, samples=32))
    assert (row.start, row.stop, row.inner) == (0, 46, slice(0, 46))
    assert (column.start, column.stop) == (0, 44)
    assert len(sample_windows((46, 45), Tiling(tile=20, halo=6, samples=32))) > 1
