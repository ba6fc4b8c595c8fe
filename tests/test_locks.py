"""Locks: one holder among threads and processes, none after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from mbgraph.errors import RunError
from mbgraph.locks import hold, holder


def test_a_lock_is_held_once_and_freed(tmp_path):
    path = tmp_path / "deep" / "a.lock"
    with hold(path) as mine, hold(path) as yours:
        assert (mine, yours) == (True, False)
        assert holder(path)["pid"] == os.getpid()
    assert holder(path) is None
    with hold(path) as mine:
        assert mine


def test_a_lock_is_freed_by_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), hold(tmp_path / "a.lock"):
        raise ZeroDivisionError
    with hold(tmp_path / "a.lock") as mine:
        assert mine


def test_of_many_threads_one_gets_the_lock(tmp_path):
    path, got, start, leave = tmp_path / "a.lock", [], threading.Barrier(8), threading.Barrier(8)

    def attempt():
        start.wait()
        with hold(path) as mine:
            got.append(mine)
            leave.wait()

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == [False] * 7 + [True]


CHILD = """\
import sys, time
from pathlib import Path
from mbgraph.locks import hold
with hold(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def test_a_killed_process_holds_nothing(tmp_path):
    path = tmp_path / "a.lock"
    with ExitStack() as stack:
        child = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
        )
        stack.callback(child.kill)
        assert child.stdout.readline() == "True\n"
        with hold(path) as mine:
            assert not mine
            assert holder(path)["pid"] == child.pid
        child.kill()
        child.wait()
        with hold(path) as mine:
            assert mine
            assert holder(path)["pid"] == os.getpid()


@pytest.mark.parametrize("text", ["", "[1]", "\xff"])
def test_an_unreadable_holder_is_not_known(tmp_path, text):
    (tmp_path / "a.lock.holder").write_text(text, encoding="latin-1")
    assert holder(tmp_path / "a.lock") is None


def test_a_lock_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunError, match=r"cannot lock .*a\.lock: .*; choose another folder"),
        hold(tmp_path / "file" / "a.lock"),
    ):
        pass
