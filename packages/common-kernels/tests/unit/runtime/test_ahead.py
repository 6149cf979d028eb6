# SPDX-License-Identifier: Apache-2.0
import threading

import pytest
from common_kernels.runtime.ahead import read_ahead


def test_items_come_in_order_and_none_is_lost():
    assert list(read_ahead(iter(range(50)), 3)) == list(range(50))
    assert list(read_ahead([], 1)) == []
    assert list(read_ahead([None, None], 1)) == [None, None]


def test_as_many_are_made_as_may_wait():
    made, reached = [], threading.Event()

    def items():
        for number in range(9):
            made.append(number)
            if len(made) == 4:  # one is used, two wait, one is at the door
                reached.set()
            yield number

    ahead = read_ahead(items(), 2)
    assert next(ahead) == 0
    assert reached.wait(20)
    assert len(made) == 4
    ahead.close()
    assert len(made) == 4


def test_errors_come_after_the_items_before_them():
    def items():
        yield 1
        raise ValueError("damaged")

    ahead = read_ahead(items(), 2)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(ahead)


def test_no_thread_is_left():
    ahead = read_ahead(iter(range(9)), 1)
    next(ahead)
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]
