"""`mbgraph perturb`: a noisy copy of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mbgraph.cli.common import PATH, SEED, Command, console, dataset_argument, emit_json, json_option, load, out, table
from mbgraph.errors import UsageError


class Amount(click.ParamType):
    """A share (``0.3``, ``30%``) or a number of edges (``500``)."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        """Return an int for a number of edges and a float for a share."""
        if isinstance(value, int | float):
            return value
        text = value.strip()
        try:
            if text.endswith("%"):
                return float(text[:-1]) / 100
            return int(text) if text.isdigit() else float(text)
        except ValueError:
            self.fail(f"{value!r} is neither a share such as 0.3 or 30% nor a number of edges", param, ctx)


@click.command("perturb", cls=Command)
@dataset_argument
@click.option(
    "--add", type=Amount(), default=0.0, help="Share (0.3, 30%) or number (500) of edges to add per behavior."
)
@click.option("--remove", type=Amount(), default=0.0, help="Share or number of edges to remove per behavior.")
@click.option("--behavior", "behaviors", multiple=True, help="Auxiliary behavior to perturb; repeatable. Default: all.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed; amounts are nested in it.")
@click.option("--allow-held-out", is_flag=True, help="Let added pairs be valid or test pairs.")
@click.option(
    "-o",
    "--out",
    "folder",
    type=PATH,
    help="Folder to write. Default: named by amount.",
)
@click.option("--force", is_flag=True, help="Overwrite a dataset folder.")
@json_option
def command(
    dataset: str,
    add: int | float,
    remove: int | float,
    behaviors: tuple[str, ...],
    seed: int,
    allow_held_out: bool,
    folder: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write a copy of a dataset with auxiliary edges added or removed, for robustness studies.

    Counts are exact. Added pairs are new to their behavior and never held-out pairs; the target behavior and
    the held-out pairs are not touched. Under one seed, smaller amounts are contained in larger ones. The
    folder gets the npz layout and manifest.json.

    \b
    Examples:
      mbgraph perturb --add 0.3                                 the demo data, 30 % more edges per behavior
      mbgraph perturb beibei --remove 10% --behavior view -o beibei-less
      mbgraph perturb taobao15k --add 500 --seed 1 -o noisy
    """  # noqa: D301 (click reads the backspace)
    from mbgraph.data.alignment import alignment
    from mbgraph.data.catalog import check_name
    from mbgraph.data.formats.folder import claimed_folder
    from mbgraph.data.formats.npz import write_npz
    from mbgraph.data.perturb import perturb
    from mbgraph.files import safe_name, write_json

    if folder is not None:
        check_name(folder)
        _check_folder(folder, dataset, force)
    ds = load(dataset)
    noisy = perturb(ds, add, remove, behaviors or None, allow_held_out=allow_held_out, rng=seed)
    target = folder if folder is not None else Path(safe_name(noisy.name))
    manifest = noisy.metadata["perturbation"]
    with claimed_folder(target):
        _check_folder(target, dataset, force)
        write_npz(noisy, target, overwrite=force)
        write_json(target / "manifest.json", manifest)
    if folder is None and not as_json:
        console.print(f"no -o given: writing to ./{target}")

    plan = manifest["behaviors"]
    if as_json:
        emit_json(
            {
                "out": str(target),
                "added": {behavior: counts["added"] for behavior, counts in plan.items()},
                "removed": {behavior: counts["removed"] for behavior, counts in plan.items()},
                "dataset": ds.name,
                "seed": manifest["seed"],
            }
        )
        return
    before, after = alignment(ds), alignment(noisy)
    rows: list[list[Any]] = [
        [behavior, *counts.values(), before.bar[behavior], after.bar[behavior]] for behavior, counts in plan.items()
    ]
    table(
        f"Perturbed, seed {seed}",
        ["", "before", "added", "removed", "after", "BAR before", "BAR after"],
        rows,
    )
    out.print(f"DT {before.dt:.4f} before, {after.dt:.4f} after")
    console.print(f"wrote {target}")


def _check_folder(folder: Path, dataset: str, force: bool) -> None:
    """Refuse a folder that is the source, or holds anything but a dataset: overwriting replaces the whole folder."""
    from mbgraph.data.catalog import find_dataset
    from mbgraph.data.formats.npz import check_place

    if folder.is_dir() and dataset != "demo" and folder.resolve() == find_dataset(dataset):
        raise UsageError(f"{folder} is the dataset itself", "choose another folder with -o")
    check_place(folder, force)
