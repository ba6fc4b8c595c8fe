"""One hostile input or option, several commands, and what came of each: fine, one line, a traceback or worse."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from click.testing import CliRunner
from hypothesis import strategies as st

from mbgraph.cli.main import cli
from mbgraph.cli.streams import prepare_streams  # noqa: F401 (what the entry point does beyond the commands)

sys.path.insert(0, str(Path(__file__).parent))
from corpus import make_data, make_logs, make_runs
from flags import abused
from mutations import Mutation, apply, copy, draw
from watch import Deeds, loaded_from, watched

__all__ = ["Case", "Harness", "Result", "cases"]

SECONDS = 25.0
"""Of the processor; a machine may have others to serve."""

WAITING = 90.0
"""By the clock: nothing may wait for what never comes."""

MEMORY = 2048.0


@dataclass(frozen=True)
class Case:
    """An input: which of a kind, how it is changed, and which of its commands are run; a ``flag`` is a command."""

    kind: str
    which: float
    changes: tuple[Mutation, ...]
    commands: tuple[float, ...]


def cases(kinds: Sequence[str] = ("data", "log", "run", "flag"), commands: int = 2) -> st.SearchStrategy[Case]:
    """Return hostile inputs, each drawn from a number of its own so that neighbours have nothing in common."""

    def made(seed: int) -> Case:
        rng = Random(seed)
        kind, which = rng.choice(list(kinds)), rng.random()
        changes = () if kind == "flag" else tuple(draw(rng) for _ in range(rng.choice((1, 1, 1, 2, 3))))
        return Case(kind, which, changes, tuple(rng.random() for _ in range(commands)))

    return st.integers(0, 2**63).map(made)


@dataclass
class Result:
    """What one command did with an input."""

    command: str
    outcome: str
    detail: str = ""
    seconds: float = 0.0
    peak_mib: float = 0.0
    outside: set[str] = field(default_factory=set)
    executed: set[str] = field(default_factory=set)

    @property
    def bad(self) -> bool:
        """Whether it must not be so."""
        return self.outcome not in ("fine", "one line") or bool(self.outside or self.executed)


class Harness:
    """A corpus in a folder, and the calls on mutated copies of it.

    Parameters
    ----------
    root : Path
        An empty folder.
    with_runs : bool
        Whether the corpus has run directories, which takes seconds; options are abused on them too.
    """

    def __init__(self, root: Path, with_runs: bool = True) -> None:
        self.root = root
        self.corpus = root / "corpus"
        self.corpus.mkdir(parents=True)
        self.home = root / "home"
        self.home.mkdir()
        self.known = {"data": make_data(self.corpus), "log": make_logs(self.corpus)}
        if with_runs:
            self.known["run"] = make_runs(self.corpus, self.known["data"]["npz"])
            self.known["flag"] = {"npz": self.known["data"]["npz"]}
            self.flags = abused(self.known["data"]["npz"], self.known["run"]["lightgcn"], self.known["log"]["csv"])
        self.number = 0

    def run(self, case: Case) -> Iterator[Result]:
        """Yield what each command of a case did."""
        names = sorted(self.known[case.kind])
        name = names[int(case.which * len(names))]
        source = self.known[case.kind][name]
        self.number += 1
        work = self.root / "work" / str(self.number)
        work.mkdir(parents=True)
        try:
            place = copy(source, work / source.name)
            for change in case.changes:
                with contextlib.suppress(OSError, ValueError):  # a change of a file that an earlier one took away
                    apply(change, place)
            known = self._commands(case.kind, place)
            for turn, share in enumerate(case.commands):
                arguments = [
                    f"{turn}-{word}" if word.startswith("out") else word for word in known[int(share * len(known))]
                ]
                yield self._call(arguments, work, place, f"{case.kind}/{name}")
        finally:
            for path in work.rglob("*"):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)
            shutil.rmtree(work, ignore_errors=True)

    def _commands(self, kind: str, place: Path) -> list[list[str]]:
        path = str(place)
        if kind == "data":
            return [
                ["inspect", path],
                ["inspect", path, "--json"],
                ["data", "check", path],
                ["data", "convert", path, "-o", "out", "--to", "npz"],
                ["data", "convert", path, "-o", "out", "--to", "pairs", "--min-user", "1"],
                ["perturb", path, "--add", "1"],
                ["fit", path, "--model", "popularity", "--quiet", "--json"],
            ]
        if kind == "log":
            user, item = ("user_id", "item_id") if place.suffix == ".inter" else ("user", "item")
            time = "timestamp" if place.suffix == ".inter" else "time"
            columns = ["--user", user, "--item", item, "--target", "buy"]
            return [
                ["data", "import", path, *columns, "-o", "out"],
                ["data", "import", path, *columns, "--time", time, "-o", "out"],
                ["data", "import", path, *columns, "--behaviors", "buy,view", "--json", "-o", "out"],
                ["inspect", path],
            ]
        if kind == "flag":
            return self.flags
        other = str(self.known["run"]["popularity"])
        return [
            ["evaluate", path],
            ["recommend", path, "--all", "-k", "2"],
            ["export", path, "-o", "out.npz"],
            ["compare", path, other],
            ["fit", "--resume", path, "--quiet"],
            ["fit", "--resume", path, "--epochs", "3", "--quiet"],
            ["report", path, "-o", "out.html"],
            ["fit", "--config", str(place / "config.toml"), "--quiet"],
        ]

    def _call(self, arguments: list[str], work: Path, place: Path, what: str) -> Result:
        here = Path.cwd()
        environment = {"HOME": str(self.home), "MBGRAPH_DATA": str(self.home), "TMPDIR": str(work)}
        os.chdir(work)
        _forget_peak()
        before = _peak_mib()
        started, done = time.process_time(), None
        try:
            with watched() as deeds, _alarm():
                done = CliRunner(catch_exceptions=True).invoke(cli, arguments, env=environment)
        finally:
            os.chdir(here)
        result = Result(f"{what}: {' '.join(arguments[:2])}", "fine", seconds=time.process_time() - started)
        result.peak_mib = _peak_mib()
        result.outside = deeds.outside(self.root)
        result.executed = _executed(deeds, work, place)
        self._judge(result, done, before)
        return result

    @staticmethod
    def _judge(result: Result, done, before: float) -> None:
        error = None if done is None else done.exception
        if done is None or isinstance(error, _TooLong) or result.seconds > SECONDS:
            result.outcome = "hang"
        elif error is not None and not isinstance(error, SystemExit):
            result.outcome, result.detail = "traceback", f"{type(error).__name__}: {error}"[:300]
        elif result.peak_mib - before > MEMORY:
            result.outcome = "memory"
        elif done.exit_code:
            lines = [line for line in done.stderr.split("\n") if line.startswith("error: ")]
            told = len(lines) == 1 and done.stderr.rstrip("\n").split("\n")[-1] == lines[0]
            result.outcome, result.detail = ("one line" if told else "silent"), done.stderr[-300:]


class _TooLong(BaseException):
    """A call takes longer than anybody waits."""


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TooLong

    kinds = ((signal.ITIMER_PROF, signal.SIGPROF, SECONDS), (signal.ITIMER_REAL, signal.SIGALRM, WAITING))
    before = [signal.signal(number, ring) for _, number, _ in kinds]
    for timer, _, seconds in kinds:
        signal.setitimer(timer, seconds)
    try:
        yield
    except _TooLong:
        pass
    finally:
        for (timer, number, _), handler in zip(kinds, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def _executed(deeds: Deeds, work: Path, place: Path) -> set[str]:
    """Return programs that were started, modules that came out of the input, and files that only its code makes."""
    made = {str(path) for path in work.rglob("EVIL*") if path.is_file() and place not in path.parents and path != place}
    return {*deeds.started, *loaded_from(work), *made}


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # Linux alone can begin anew
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0.0)
