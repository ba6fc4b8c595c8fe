"""The whole job once, on the embedded data: models and anchors compared, and recommendations of RMBRec."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mbgraph.config import FitConfig
from mbgraph.run import Run, fit
from mbgraph.training.callbacks import Callback

__all__ = ["SHOWN", "run_demo"]

SHOWN: dict[str, dict[str, Any]] = {
    "rmbrec": {"model": "rmbrec"},
    "lightgcn": {"model": "lightgcn"},
    "lightgcn-union": {"model": "lightgcn", "variant": "union"},
    "conversion": {"model": "conversion"},
    "popularity": {"model": "popularity"},
}
"""What is compared, by the name that the table shows. The last three are anchors: what little effort reaches."""


def run_demo(
    directory: str | os.PathLike[str],
    *,
    seed: int = 2026,
    threads: int = 0,
    callbacks: Callable[[str], Sequence[Callback]] = lambda model: (),
) -> dict[str, Any]:
    """Fit everything in `SHOWN` on ``demo`` and recommend for three users.

    Parameters
    ----------
    directory : path
        Gets one run directory per model.
    seed, threads : int
        See `FitConfig`.
    callbacks : callable
        Gives the callbacks for a model's name.

    Returns
    -------
    dict
        ``models``: test metrics per model and group of held-out pairs; ``recommendations``: top 5 of three users from
        RMBRec; ``runs``: the run directories.
    """
    models: dict[str, Any] = {}
    runs: dict[str, str] = {}
    for name, chosen in SHOWN.items():
        config = FitConfig(dataset="demo", seed=seed, threads=threads, **chosen)
        outcome = fit(config, Path(directory) / name, callbacks(name))
        if outcome["interrupted"]:
            raise KeyboardInterrupt
        runs[name] = outcome["run"]
        models[name] = {
            group: {"share": values["share"], **values["metrics"]}
            for group, values in outcome["details"]["test"]["groups"].items()
        }
    return {
        "dataset": "demo",
        "seed": seed,
        "models": models,
        "recommendations": _top(runs["rmbrec"]),
        "runs": runs,
    }


def _top(run_directory: str) -> list[dict[str, Any]]:
    from mbgraph.recommend import recommend

    run = Run.load(run_directory)
    dataset = run.dataset()
    users = dataset.users.ids[:3].tolist()
    frame = recommend(run.model(dataset), dataset, users=users, k=5)
    return [
        {"user": user, "items": part["item"].tolist(), "scores": part["score"].tolist()}
        for user, part in frame.groupby("user", sort=False)
    ]
