import threading

import pytest

from mbgraph._kernels.parallel import run_chunks


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_row_is_done_once(threads):
    done = [0] * 100

    def work(start, stop, by):
        for row in range(start, stop):
            done[row] += by

    run_chunks(work, [0, 3, 3, 50, 51, 100], (2,), threads)
    assert done == [2] * 100


def test_two_threads_are_at_work_together():
    meeting = threading.Barrier(2, timeout=20)
    run_chunks(lambda start, stop: meeting.wait(), [0, 1, 2], (), 2)  # a single thread would wait in vain


def test_an_error_of_any_thread_comes_out():
    def work(start, stop):
        raise ValueError(f"rows {start} to {stop}")

    with pytest.raises(ValueError, match="rows"):
        run_chunks(work, [0, 1, 2], (), 2)
