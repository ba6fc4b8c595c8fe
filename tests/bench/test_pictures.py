"""What pictures show, and that they are drawn where matplotlib is."""

from __future__ import annotations

import importlib.util
import itertools
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mbgraph.bench import pictures
from mbgraph.bench.curves import activity_groups, heat_map, noise_panels, option_panels, training_panels
from mbgraph.bench.jobs import expand
from mbgraph.bench.results import gather
from mbgraph.bench.runner import execute
from mbgraph.bench.study import Study
from mbgraph.errors import DataError, UsageError

draws = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed (the extra plot)"
)


def computed(study, store, fake, value):
    """Run a study with figures that a function of the job's setting and seed gives."""
    jobs = expand(study)
    values = {store.address(job): value(job) for job in jobs}

    def fit(config, directory, callbacks):
        fake.value = lambda config: values[directory.name]
        return fake(config, directory, callbacks)

    execute(jobs, store, fit=fit)
    return gather(study, study.datasets, jobs, store)


@pytest.fixture
def noisy(text, write, store, fake):
    study = Study.load(write(text + "\n[noise]\nadd = [0.1, 0.5]\nremove = [0.3]\nseeds = [7, 8]\n"))
    return computed(study, store, fake, lambda job: 0.5 - 0.2 * job.recipe.add - 0.1 * job.recipe.remove)


@pytest.fixture
def grid(text, write, store, fake):
    axes = 'axes = { "regularizers.infonce.weight" = [0.5, 0.1], "regularizers.rex.weight" = [1.0, 2.0, 4.0] }\n'
    study = Study.load(write(f"{text}[[grid]]\n{axes}[[grid]]\nmode = 'product'\n{axes}"))

    def value(job):
        weights = {each.name: each.weight for each in job.config.chosen_regularizers} if job.config.regularizers else {}
        return 0.1 * weights.get("infonce", 1.0) + 0.01 * weights.get("rex", 1.0)

    return computed(study, store, fake, value)


def test_noise_curves_and_drops(noisy):
    absolute, drops = noise_panels(noisy, noisy.datasets[0], "HR@10")
    line = next(line for line in absolute.lines if line.name == "full")
    assert line.x == [-0.3, 0.0, 0.1, 0.5]
    assert line.y == pytest.approx([0.47, 0.5, 0.48, 0.4])
    assert line.spread == pytest.approx([0.0] * 4)
    drop = next(line for line in drops.lines if line.name == "full")
    assert drop.y == pytest.approx([0.06, 0.0, 0.04, 0.2])


def test_lines_of_one_option_and_a_map_of_two(grid):
    dataset = grid.datasets[0]
    panels = option_panels(grid, dataset, ["HR@10"])
    assert [panel.x_label for panel in panels] == ["infonce.weight", "rex.weight"]
    line = next(line for line in panels[0].lines if line.name == "full HR@10")
    assert (line.x, line.y) == ([0.1, 0.5], pytest.approx([0.02, 0.06]))
    options, x, y, values = heat_map(grid, dataset, "full", "HR@10")
    assert (options, x, y) == (("infonce.weight", "rex.weight"), [0.1, 0.5], [1.0, 2.0, 4.0])
    assert values == pytest.approx(np.array([[0.02, 0.06], [0.03, 0.07], [0.05, 0.09]]))
    assert heat_map(grid, dataset, "conversion", "HR@10") is None


def test_training_curves_are_those_of_the_log(tmp_path):
    log = tmp_path / "metrics.jsonl"
    records = [
        {"epoch": 1, "terms": {"main": 0.5}, "gradient_norms": {"main": 2.0}, "valid": {"HR@10": 0.1, "MRR@10": 0.2}},
        {"epoch": 2, "terms": {"main": 0.4}, "valid": {"HR@10": 0.2, "MRR@10": 0.3}},
    ]
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    terms, norms, valid = training_panels(log)
    assert (terms.lines[0].name, terms.lines[0].y) == ("main", [0.5, 0.4])
    assert (norms.lines[0].x, norms.lines[0].y, norms.log) == ([1.0], [2.0], True)
    assert [line.name for line in valid.lines] == ["HR@10"]
    with pytest.raises(DataError, match="cannot read"):
        training_panels(tmp_path / "none.jsonl")


def test_users_are_grouped_by_what_they_bought(small):
    degree = np.bincount(small.edges["buy"].user, minlength=small.num_users)
    ids = small.users.ids
    groups = activity_groups(small, ids, degree.astype(float), bins=4)
    assert sum(each["users"] for each in groups) == small.num_users
    for each in groups:
        inside = degree[(degree >= each["least"]) & (degree <= each["most"])]
        assert len(inside) == each["users"]
        assert each["mean"] == pytest.approx(inside.mean())
    assert all(one["most"] < other["least"] for one, other in itertools.pairwise(groups))


def test_without_matplotlib_it_says_what_to_install(noisy, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "can_draw", lambda: False)
    with pytest.raises(UsageError, match=r'pictures need matplotlib; install it with: pip install "mbgraph\[plot\]"'):
        pictures.write_pictures(noisy, tmp_path)


@draws
def test_pictures_of_a_study_are_written_as_svg_and_png(noisy, grid, tmp_path):
    written = [*pictures.write_pictures(noisy, tmp_path / "noise"), *pictures.write_pictures(grid, tmp_path / "grid")]
    names = sorted(path.name for path in written)
    assert len(names) == 2 * (2 + 1 + 3)
    for path in written:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            assert ET.fromstring(path.read_text(encoding="utf-8")).tag.endswith("svg")


@draws
def test_the_same_picture_is_the_same_file(noisy):
    draw = next(iter(pictures.study_figures(noisy).values()))
    assert pictures.svg(draw()) == pictures.svg(draw())


@draws
def test_a_study_without_settings_shows_its_groups(study, store, fake):
    found = computed(study, store, fake, lambda job: 0.5)
    (draw,) = pictures.study_figures(found).values()
    texts = [label.get_text() for label in draw().axes[0].get_yticklabels()]
    assert texts == ["full", "w/o view", "w/o cart", "conversion"]
