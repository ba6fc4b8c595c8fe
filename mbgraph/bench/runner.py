"""Running a study: what is missing is computed, in an order that makes every stop a usable one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from mbgraph import limits
from mbgraph.bench.identity import code_hash, data_code_hash
from mbgraph.bench.jobs import Job, expand, in_rounds, quick
from mbgraph.bench.perform import Fit, Performed, fit_or_resume, is_finished, perform
from mbgraph.bench.results import Results, gather
from mbgraph.bench.sources import choose_datasets
from mbgraph.bench.store import Store, default_store
from mbgraph.bench.study import Study
from mbgraph.errors import RunError

__all__ = ["Event", "Plan", "execute", "plan", "run"]

_PAUSE = 0.5  # seconds between two looks at a run that another suite is at


@dataclass(frozen=True)
class Plan:
    """What a study comes to here.

    Attributes
    ----------
    study : Study
    datasets : tuple of str
        Those it runs on.
    jobs : list of Job
    notes : list of str
        A line for each dataset that is missing, and where stand-ins are used.
    """

    study: Study
    datasets: tuple[str, ...]
    jobs: list[Job]
    notes: list[str]


@dataclass(frozen=True)
class Event:
    """Something that happened to a job: ``started``, or a status of `Performed`."""

    job: Job
    what: str
    error: str = ""


def plan(
    study: Study,
    datasets: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    *,
    is_quick: bool = False,
) -> Plan:
    """Say what a study comes to on the data that are here.

    Parameters
    ----------
    study : Study
    datasets : sequence of str, optional
        Instead of the study's; each must be here.
    seeds : sequence of int, optional
        Instead of the study's.
    is_quick : bool
        A smoke run: one seed, one epoch, the ends of settings, on ``demo`` unless datasets are named.
    """
    if is_quick:
        study = quick(study)
        datasets = datasets or ("demo",)
    chosen, notes = (tuple(datasets), []) if datasets else choose_datasets(study.datasets)
    jobs = [] if study.kind == "statistics" else expand(study, chosen, seeds)
    return Plan(study, chosen, jobs, notes)


def run(
    study: Study,
    store: Store | str | os.PathLike[str] | None = None,
    *,
    datasets: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    budget: float | None = None,
    limit: float | None = None,
    jobs: int = 1,
    threads: int = 0,
    quick: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Results:
    """Compute what is missing of a study and return its results.

    Parameters
    ----------
    study : Study
    store : Store or path, optional
        `default_store` by default.
    datasets, seeds : sequence, optional
        Instead of the study's.
    budget : float, optional
        Seconds. After them no epoch begins; what was begun goes on next time.
    limit : float, optional
        Seconds of training after which each run is cut off and marked, see `mbgraph.bench.perform.perform`.
    jobs : int
        Processes. Threads are divided among them.
    threads : int
        CPU threads of all processes together; 0 takes those that there are.
    quick : bool
        See `plan`.
    on_event : callable
        Is told what happens.

    Examples
    --------
    >>> import tempfile
    >>> from mbgraph.bench import Study, run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     results = run(Study.load("table1"), folder, datasets=["demo"])
    >>> results.to_frame().query("metric == 'dt'")["value"].tolist()
    [0.35]
    """
    made = plan(study, datasets, seeds, is_quick=quick)
    kept = store if isinstance(store, Store) else Store(default_store() if store is None else store)  # type: ignore[arg-type]
    interrupted = execute(
        made.jobs, kept, budget=budget, limit=limit, processes=jobs, threads=threads, on_event=on_event
    )
    return gather(made.study, made.datasets, made.jobs, kept, notes=made.notes, interrupted=interrupted)


def execute(
    jobs: Sequence[Job],
    store: Store,
    *,
    budget: float | None = None,
    limit: float | None = None,
    processes: int = 1,
    threads: int = 0,
    on_event: Callable[[Event], None] = lambda event: None,
    fit: Fit = fit_or_resume,
) -> bool:
    """Run every job that the store lacks; return whether Ctrl-C or the budget ended it before all was done.

    Raises
    ------
    RunError
        If the disk is full, or a process dies that was to run a job.
    """
    moment = float("inf") if budget is None else time.time() + budget
    data_code_hash()
    for job in jobs:  # now, while the files are those that were loaded
        code_hash(job.config.model_class)
    try:
        waiting = deque(_first_missing(in_rounds(jobs), store, limit, on_event))
        if processes <= 1:
            return _one_by_one(waiting, store, moment, limit, threads, on_event, fit)
    except KeyboardInterrupt:  # between two jobs
        return True
    share = max(1, (threads or _cores()) // processes)
    return _side_by_side(waiting, store, moment, limit, min(processes, max(len(waiting), 1)), share, on_event, fit)


def _first_missing(
    jobs: Sequence[Job], store: Store, limit: float | None, on_event: Callable[[Event], None]
) -> list[Job]:
    """Return the jobs to run, each run once, and tell of those that are finished already."""
    missing, seen = [], set()
    for job in jobs:
        address = store.address(job, make=False)
        if is_finished(store, address, limit):
            on_event(Event(job, "found"))
        elif address is None or address not in seen:
            seen.add(address)
            missing.append(job)
    return missing


def _one_by_one(
    waiting: deque[Job],
    store: Store,
    moment: float,
    limit: float | None,
    threads: int,
    on_event: Callable[[Event], None],
    fit: Fit,
) -> bool:
    busy = 0
    while waiting:
        if time.time() >= moment:
            return True
        job = waiting.popleft()
        on_event(Event(job, "started"))
        done = perform(job, store, moment=moment, limit=limit, threads=threads, fit=fit)
        on_event(Event(job, done.status, done.error))
        if done.status == "stopped":
            return True
        busy = busy + 1 if done.status == "busy" else 0
        if done.status == "busy":
            waiting.append(job)
            if busy >= len(waiting):
                time.sleep(_PAUSE)  # nothing but what others are at: they may finish it, or die over it
    return False


def _side_by_side(
    waiting: deque[Job],
    store: Store,
    moment: float,
    limit: float | None,
    processes: int,
    threads: int,
    on_event: Callable[[Event], None],
    fit: Fit,
) -> bool:
    ended = False
    at_work: dict[Future[Performed], Job] = {}
    context = multiprocessing.get_context("spawn")  # compiled kernels have threads, which a fork would not have
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(limits.current(),)) as pool:
        try:
            while waiting or at_work:
                while waiting and len(at_work) < processes and not ended:
                    if time.time() >= moment:
                        ended = True
                        break
                    job = waiting.popleft()
                    on_event(Event(job, "started"))
                    code = code_hash(job.config.model_class)
                    at_work[pool.submit(_perform_apart, job, store, moment, limit, threads, fit, code)] = job
                if not at_work:
                    return True
                finished, _ = wait(at_work, timeout=_PAUSE, return_when=FIRST_COMPLETED)
                for future in finished:
                    job = at_work.pop(future)
                    done = future.result()
                    on_event(Event(job, done.status, done.error))
                    ended = ended or done.status == "stopped"
                    if done.status == "busy" and not ended:
                        waiting.append(job)
                        if not at_work:
                            time.sleep(_PAUSE)
        except BrokenProcessPool as error:
            raise RunError(
                "a process that ran a job was ended from outside, perhaps for want of memory",
                "start again with fewer --jobs: what is finished is kept",
            ) from error
        except KeyboardInterrupt:
            # Ctrl-C reaches the processes too: each ends after the step at hand and keeps its checkpoint
            pool.shutdown(wait=True, cancel_futures=True)
            return True
    return ended


def _begin(allowed: limits.Limits) -> None:
    """Begin a process of the pool under the limits of the one that hands out jobs."""
    limits.use(allowed)
    _ignore_interrupts()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the end of the process that hands out jobs, and end too.

    A scheduler's SIGTERM and ``kill -9`` reach that process alone. Its pool would train on for hours under the locks of
    its runs, where nobody sees it; what this ends is continued from its last epoch.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C between two jobs to the process that hands them out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _perform_apart(
    job: Job, store: Store, moment: float, limit: float | None, threads: int, fit: Fit, code: str
) -> Performed:
    """Run a job in a process of the pool, which listens to Ctrl-C meanwhile."""
    if code_hash(job.config.model_class) != code:
        raise RunError("the source of mbgraph changed while the suite ran", "start again: what is finished is kept")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return perform(job, store, moment=moment, limit=limit, threads=threads, fit=fit)
    finally:
        _ignore_interrupts()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
