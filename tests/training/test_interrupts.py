import signal
import threading

import pytest

from mbgraph.training.interrupts import Interrupts


@pytest.fixture(autouse=True)
def default_handler():
    """Ctrl-C as Python starts with, and again afterwards."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_is_noted_and_the_second_raised():
    with Interrupts() as interrupts:
        interrupts.check()
        signal.raise_signal(signal.SIGINT)
        assert interrupts.is_asked
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_in_a_destructor_is_not_lost():
    class Interrupted:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    with Interrupts() as interrupts:
        Interrupted()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_entering_again_forgets():
    interrupts = Interrupts()
    with interrupts:
        signal.raise_signal(signal.SIGINT)
    with interrupts:
        interrupts.check()


def test_outside_it_is_python_s():
    interrupts = Interrupts()
    with interrupts:
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert not interrupts.is_asked


def test_somebody_s_own_handler_stays():
    seen = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        interrupts.check()
    assert seen == [signal.SIGINT]


def test_other_threads_get_no_signals_and_need_no_handler():
    done = []

    def run():
        with Interrupts() as interrupts:
            interrupts.check()
            done.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [True]
