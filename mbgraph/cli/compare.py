"""`mbgraph compare`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from mbgraph.cli.common import PATH, Command, console, emit_json, json_option, out, table

EPILOG = """\b
Examples:
  mbgraph compare runs/demo-lightgcn-s2026 runs/demo-rmbrec-mbgraph-s2026
  mbgraph compare RUN_A RUN_B --metric HR@10 --metric NDCG@10
  mbgraph compare RUN_A RUN_B --json
"""


@click.command(cls=Command, epilog=EPILOG)
@click.argument("run_a", type=PATH)
@click.argument("run_b", type=PATH)
@click.option("--metric", "metrics", multiple=True, metavar="NAME@K", help="Metric to compare.  [default: HR and NDCG]")
@click.option(
    "--split", type=click.Choice(["test", "valid"]), default="test", show_default=True, help="Held-out pairs."
)
@click.option("--force", is_flag=True, help="Compare although the data differ.")
@json_option
def command(run_a: Path, run_b: Path, metrics: tuple[str, ...], split: str, force: bool, as_json: bool) -> None:
    """Test whether RUN_B is better than RUN_A on the same users.

    Paired t-test, Wilcoxon signed-rank test, both corrected over the metrics (Holm), and the size of the difference.
    """
    from mbgraph.evaluation.metrics import headline_metrics
    from mbgraph.evaluation.significance import compare_per_user

    sides = [_read(path, split) for path in (run_a, run_b)]
    _check_data(sides, force)
    (first, second) = (side["results"] for side in sides)
    chosen = metrics or tuple(headline_metrics(name for name in first.metrics if name in second.metrics))
    found = compare_per_user(first, second, chosen, force=force)
    facts = [{"run": str(side["path"]), **side["facts"]} for side in sides]
    if as_json:
        compared = {name: comparison.to_dict() for name, comparison in found.items()}
        emit_json(
            {
                "a": facts[0],
                "b": facts[1],
                "split": split,
                "mask": first.mask,
                "ties": first.ties,
                "forced": force,
                "users": next(iter(found.values())).users,
                "metrics": compared,
            }
        )
        return
    data = " / ".join(dict.fromkeys(str(side["dataset"]) for side in facts))
    _show(facts, found, f"{data} {split}, mask {first.mask}, ties {first.ties}")


def _read(path: Path, split: str) -> dict[str, Any]:
    from mbgraph import manifest
    from mbgraph.errors import RunError
    from mbgraph.evaluation.per_user import read_per_user
    from mbgraph.files import read_json
    from mbgraph.schema import read_toml

    name = "per_user.npz" if split == "test" else f"per_user_{split}.npz"
    manifest.check_complete(path, ["config.toml", "dataset.json"])
    if split == "valid" and not (path / name).is_file() and (path / "per_user.npz").is_file():
        raise RunError(f"{path} has no validation results", "fit with --validation holdout, or compare test")
    manifest.check_complete(path, [name])
    manifest.check(path, ["config.toml", "dataset.json", name])
    results = read_per_user(path / name)
    if results.split != split:
        raise RunError(f"{path / name} holds the {results.split} split, not {split}", "fit the model again")
    config, data = read_toml(path / "config.toml"), read_json(path / "dataset.json")  # a `FitConfig` would load torch
    if not isinstance(data, dict) or not data.get("content_hash"):
        raise RunError(f"{path / 'dataset.json'} does not say which data the run stands on", "fit the model again")
    facts = {"dataset": data.get("name"), **{key: config.get(key) for key in ("model", "variant", "seed")}}
    return {"path": path, "results": results, "hash": (data["content_hash"], data.get("ids_hash")), "facts": facts}


def _check_data(sides: list[dict[str, Any]], force: bool) -> None:
    from mbgraph.errors import RunError

    if sides[0]["hash"] == sides[1]["hash"]:
        return
    names = " and ".join(repr(side["facts"]["dataset"]) for side in sides)
    message = f"the runs stand on different data ({names}, by content)"
    if not force:
        raise RunError(message, "compare runs of one dataset, or use --force")
    console.print(f"warning: {message}; only users of both are compared")


def _show(facts: list[dict[str, Any]], found: dict[str, Any], title: str) -> None:
    for letter, side in zip("AB", facts, strict=True):
        variant = f" ({side['variant']})" if side["variant"] else ""
        out.print(f"{letter}: {side['run']}: {side['model']}{variant}, seed {side['seed']}", soft_wrap=True)
    rows = [
        [name, one.mean_a, one.mean_b, f"{one.difference:+.4f}", f"[{one.low:+.4f}, {one.high:+.4f}]"]
        for name, one in found.items()
    ]
    table(title, ["", "A", "B", "B - A", "95 % interval"], rows)
    tests = [
        [name, _number(one.effect), f"{one.better:,}", f"{one.worse:,}", _p(one.t_holm), _p(one.wilcoxon_holm)]
        for name, one in found.items()
    ]
    table("Paired tests", ["", "d_z", "better", "worse", "t: p", "Wilcoxon: p"], tests)
    users = next(iter(found.values())).users
    many = f", p-values corrected for {len(found)} metrics (Holm)" if len(found) > 1 else ""
    out.print(f"{users:,} users{many}")


def _number(value: float) -> str:
    return f"{value:+.3f}" if math.isfinite(value) else ("+inf" if value > 0 else "-inf")


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else (f"{value:.0e}" if value >= 1e-300 else "<1e-300")
