"""Studies: those of the paper say what the paper says, and a bad one is refused with file, line and remedy."""

from __future__ import annotations

import re

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.bench.jobs import expand, in_rounds, quick
from mbgraph.bench.positions import line_of
from mbgraph.bench.study import Pieces, Study, shipped_studies
from mbgraph.errors import MbgraphError, UsageError

PAPER = {
    "table2": {
        ("taobao", "RMBRec"): (0.1462, 0.0969),
        ("beibei", "LightGCN"): (0.0383, 0.0207),
        ("tmall", "UIPL"): (0.1484, 0.0819),
        ("taobao", "BCIPM"): (0.1257, 0.0708),
        ("tmall", "PKEF"): (0.1138, 0.0642),
        ("taobao", "MISSL"): (0.0782, 0.0629),
        ("beibei", "MBSSL"): (0.0626, 0.0352),
        ("beibei", "S-MBRec"): (0.0489, 0.0253),
    },
    "table3": {
        ("taobao", "RMBRec"): (0.1462, 0.0969),
        ("tmall", "RMBRec"): (0.1549, 0.0838),
        ("beibei", "RMBRec"): (0.0924, 0.0489),
        ("taobao", "w/o RRM"): (0.1089, 0.0702),
        ("tmall", "w/o RRM"): (0.1083, 0.0589),
        ("beibei", "w/o RRM"): (0.0667, 0.0321),
        ("taobao", "w/o ORM"): (0.1321, 0.0887),
        ("tmall", "w/o ORM"): (0.1360, 0.0766),
        ("beibei", "w/o ORM"): (0.0871, 0.0461),
        ("taobao", "w/o view"): (0.1093, 0.0758),
        ("tmall", "w/o view"): (0.0686, 0.0411),
        ("beibei", "w/o view"): (0.0789, 0.0425),
        ("taobao", "w/o cart"): (0.1016, 0.0603),
        ("tmall", "w/o cart"): (0.1895, 0.1043),
        ("beibei", "w/o cart"): (0.0571, 0.0294),
        ("taobao_noview", "RMBRec"): (0.1093, 0.0758),
        ("tmall_noview", "RMBRec"): (0.0686, 0.0411),
    },
    "table4": {
        ("taobao", "IRMv1, published code"): (0.1456, 0.0962),
        ("tmall", "IRMv1, published code"): (0.1411, 0.0794),
        ("beibei", "IRMv2, published code"): (0.0902, 0.0478),
        ("tmall", "IRMv2, published code"): (0.1304, 0.0729),
        ("taobao", "REx"): (0.1462, 0.0969),
    },
}


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_load_and_state_their_anchors(name):
    study = Study.load(name)
    assert study.question.endswith("?")
    if study.kind == "accuracy":
        anchors = {row.model for row in study.rows if row.role == "anchor"}
        more = {"item-cosine", "twostage"} if name in ("table2", "noise", "union") else set()
        assert anchors == {"conversion", "popularity", "lightgcn"} | more
        for row in study.rows:
            for dataset in study.datasets:
                study.config(row, dataset, 1).resolve(1000)


def test_the_promised_studies_are_shipped():
    names = {
        "table1",
        "table2",
        "table3",
        "table4",
        "table5",
        "noise",
        "sensitivity",
        "variants",
        "plugins",
        "adaptive",
        "union",
        "padding",
    }
    assert set(shipped_studies()) == names


@pytest.mark.parametrize("name", PAPER)
def test_published_figures_are_those_of_the_paper(name):
    found = {(entry.dataset, entry.row): entry.figures for entry in Study.load(name).published}
    for key, (hr, ndcg) in PAPER[name].items():
        assert (found[key]["HR@10"], found[key]["NDCG@10"]) == (hr, ndcg), key
    if name == "table3":
        assert found.keys() == PAPER[name].keys()


def test_noise_has_three_perturbation_seeds_or_more():
    noise = Study.load("noise").noise
    assert noise.add == noise.remove == (0.1, 0.3, 0.5)
    assert len(noise.seeds) >= 3


BAD = {
    "unknown key": ('subject = "full"', 'subjct = "full"', r":6: unknown option of the study 'subjct'; did you mean"),
    "unknown key of a row": ('drop_each = "auxiliary"', 'dropeach = "auxiliary"', r":17: unknown option of a row"),
    "unknown model": (
        'model = "conversion"',
        'model = "convertion"',
        r":21: row 'conversion': unknown model .*mean 'conv",
    ),
    "unknown option": (
        "training = { epochs = 2 }",
        "training = { epoch = 2 }",
        r"unknown option of the training options 'epoch'; did you mean 'epochs'\?",
    ),
    "unknown dataset": (
        'datasets = ["',
        'datasets = ["beibie", "',
        r":3: unknown dataset 'beibie'; did you mean 'beibei'",
    ),
    "no such folder": ('datasets = ["', 'datasets = ["./none", "', r":3: unknown dataset './none'"),
    "no seed": ("seeds = [1, 2]", "seeds = []", r":4: no cell on .* has a seed; write for example seeds = \[2026\]"),
    "seed twice": ("seeds = [1, 2]", "seeds = [1, 1]", r":4: a seed stands twice"),
    "bad seed": ("seeds = [1, 2]", "seeds = [-1]", r":4: seeds of the study must be"),
    "unknown metric": ('"NDCG@10"]', '"NDGC@10"]', r":5: unknown metric 'NDGC@10'; did you mean 'NDCG@10'"),
    "unknown subject": ('subject = "full"', 'subject = "ful"', r":6: no row is called 'ful'"),
    "two rows of a name": ('name = "conversion"', 'name = "full"', r":20: two rows are called 'full'; rename one"),
    "no title": ('title = "Who is best"\n', "", r"the study needs 'title'"),
    "half a drop": ('name = "w/o {behavior}"', 'name = "without"', r":16: row 'without' has only one of drop_each"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_studies_are_refused_with_file_line_and_remedy(case, text, write):
    old, new, message = BAD[case]
    assert old in text
    with pytest.raises(MbgraphError, match=r"mine\.toml:\d+: ") as caught:
        Study.load(write(text.replace(old, new, 1)))
    assert re.search(message, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)


PUBLISHED = """
[[published]]
dataset = "taobao"
row = "full"
place = "Table 3"
figures = { "HR@10" = 0.1 }
"""
BAD_ENDS = {
    "published without a place": (PUBLISHED.replace('place = "Table 3"\n', ""), "needs 'place'"),
    "published beside other data": (
        PUBLISHED.replace('"taobao"', '"taobao15k"'),
        r"nothing was published for 'taobao15k'.*beside the data they were measured on",
    ),
    "published row": (PUBLISHED.replace('"full"', '"ful"'), r"no row is called 'ful'; did you mean 'full'\?"),
    "published metric": (PUBLISHED.replace("HR@10", "HR@5"), "'HR@5' is no metric of the study"),
    "a row on an unknown dataset": ("[rows.on.beibie]\nvariant = 'union'\n", "unknown dataset 'beibie'"),
    "a row with a bad option on a dataset": (
        "[rows.on.taobao]\noptions = { smoothing = -1.0 }\n",
        "row 'conversion': smoothing of model 'conversion' must be",
    ),
    "a row with an unknown key on a dataset": ("[rows.on.taobao]\noption = 1\n", "unknown option of the base 'option'"),
    "no tables by dataset": ("on = 3\n", r"on must be tables; write them as \[rows.on.DATASET\]"),
    "noise without seeds": ("[noise]\nadd = [0.1]\n", "no noisy cell has a seed"),
    "noise without amounts": ("[noise]\nseeds = [1]\n", "the noise has no amount"),
    "removing everything": ("[noise]\nseeds = [1]\nremove = [1.0]\n", "removing everything leaves nothing"),
    "grid option": ('[[grid]]\naxes = { "rex.weight" = [1.0] }\n', r"'rex.weight' is no option of a grid"),
    "grid value": (
        '[[grid]]\naxes = { "regularizers.rex.weight" = [-1.0] }\n',
        "weight of regularizer 'rex' must be a number",
    ),
    "claim row": (
        '[[claims]]\ntext = "t"\nplace = "p"\nmetric = "HR@10"\npairs = [["full", "nobody"]]\n',
        "no row is called 'nobody'",
    ),
    "claim of a drop": (
        '[[claims]]\ntext = "t"\nplace = "p"\nmetric = "HR@10"\nmeasure = "drop"\npairs = [["full", "conversion"]]\n',
        r"a drop needs \[noise\]",
    ),
}


@pytest.mark.parametrize("case", BAD_ENDS)
def test_bad_tables_are_refused(case, text, write):
    end, message = BAD_ENDS[case]
    whole = text.replace('datasets = ["', 'datasets = ["taobao", "taobao15k", "', 1) + end
    with pytest.raises(UsageError, match=message) as caught:
        Study.load(write(whole))
    number = int(re.search(r"mine\.toml:(\d+): ", str(caught.value))[1])
    assert number > text.count("\n")


def test_a_missing_study_names_the_nearest():
    with pytest.raises(UsageError, match="unknown study 'tabel3'; did you mean 'table3'"):
        Study.load("tabel3")


names = st.text("abcdefg", min_size=1, max_size=4)
leaves = st.integers(0, 9) | st.lists(st.integers(0, 9), max_size=3)
tables = st.dictionaries(names, leaves, min_size=1, max_size=4)


@given(st.dictionaries(names, leaves | tables | st.lists(tables, min_size=1, max_size=3), min_size=1, max_size=4))
def test_lines_are_those_where_a_key_is_written(document):
    text = tomli_w.dumps(document)
    lines = text.splitlines()
    paths = []
    for key, value in document.items():
        if isinstance(value, dict):
            paths += [(key, inner) for inner in value]
        elif isinstance(value, list) and value and isinstance(value[0], dict) and f"[[{key}]]" in text:
            paths += [(key, number, inner) for number, each in enumerate(value) for inner in each]
        else:
            paths.append((key,))
    found = [line_of(text, path) for path in paths]
    for path, number in zip(paths, found, strict=True):
        assert lines[number - 1].startswith((f"{path[-1]} =", f"[{path[0]}]", f"{path[0]} ="))
    if "{" not in text:  # inline tables have several keys on a line
        assert len(set(found)) == len(paths)


def test_rows_seeds_and_behaviors_become_jobs(study, small_folder):
    jobs = expand(study)
    labels = [(job.cell.row, job.seed) for job in jobs]
    assert labels == [
        ("full", 1),
        ("full", 2),
        ("w/o view", 1),
        ("w/o view", 2),
        ("w/o cart", 1),
        ("w/o cart", 2),
        ("conversion", 1),  # no seed enters it
    ]
    assert [job.recipe.drop for job in jobs[2:5:2]] == [("view",), ("cart",)]
    assert jobs[0].config.training_options.epochs == 2
    assert jobs[-1].config.training == {}


def test_noise_is_the_same_for_every_row_and_has_a_clean_cell(text, write):
    study = Study.load(write(text + "\n[noise]\nadd = [0.1, 0.3]\nremove = [0.5]\nseeds = [7, 8]\n"))
    jobs = [job for job in expand(study, seeds=[1]) if job.cell.row == "full"]
    assert [(job.cell.setting, job.noise_seed) for job in jobs] == [
        ("no noise", None),
        ("add 10%", 7),
        ("add 10%", 8),
        ("add 30%", 7),
        ("add 30%", 8),
        ("remove 50%", 7),
        ("remove 50%", 8),
    ]
    other = [job for job in expand(study, seeds=[1]) if job.cell.row == "conversion"]
    assert [job.recipe for job in jobs] == [job.recipe for job in other]


def test_grids_one_at_a_time_and_as_a_product(text, write):
    axes = 'axes = { "regularizers.infonce.weight" = [0.1, 0.2], "options.num_layers" = [1, 2] }\n'
    each = Study.load(write(text + "[[grid]]\n" + axes))
    full = [job for job in expand(each, seeds=[1]) if job.cell.row == "full"]
    assert [job.cell.setting for job in full] == [
        "infonce.weight=0.1",
        "infonce.weight=0.2",
        "options.num_layers=1",
        "options.num_layers=2",
    ]
    assert full[3].config.model_options.num_layers == 2
    weights = {entry.name: entry.weight for entry in full[0].config.chosen_regularizers}
    assert (weights["infonce"], weights["rex"]) == (0.1, 1.0)
    product = Study.load(write(text + '[[grid]]\nmode = "product"\n' + axes))
    assert len([job for job in expand(product, seeds=[1]) if job.cell.row == "full"]) == 4


def test_pieces_go_where_they_belong(text, write):
    study = Study.load(
        write(
            text.replace("[base]", "[base]\noptions = { num_layers = 2 }")
            + '\n[[rows]]\nname = "lightgcn"\nmodel = "lightgcn"\n'
            + '\n[overrides."demo"]\nregularizers = [{ name = "infonce", weight = 0.8 }]\nseeds = [9]\n'
        )
    )
    rows = {row.name: row for row in study.rows}
    own = study.config(rows["full"], "demo", 1)
    assert own.model_options.num_layers == 2
    assert {r.name: r.weight for r in own.chosen_regularizers}["infonce"] == 0.8
    other = study.config(rows["lightgcn"], "demo", 1)
    assert other.model_options.num_layers == 3  # options are for the base's model
    assert other.training_options.epochs == 2  # training is for every row
    assert study.seeds_on("demo") == (9,)
    assert study.seeds_on("beibei") == (1, 2)


def test_a_row_may_differ_on_a_dataset(text, write):
    study = Study.load(
        write(
            text.replace('name = "full"', 'name = "full"\noptions = { num_layers = 1 }')
            + "\n[rows.on.beibei]\noptions = { smoothing = 5.0 }\n"
        )
    )
    *_, row = study.rows
    assert study.config(row, "beibei", 1).model_options.smoothing == 5.0
    assert study.config(row, "demo", 1).model_options.smoothing == 10.0
    full = study.rows[0].replace(on={"demo": Pieces(options={"gamma": 0.0}, training={"lr": 0.1})})
    own = study.config(full, "demo", 1)
    assert (own.model_options.num_layers, own.model_options.gamma, own.training_options.lr) == (1, 0.0, 0.1)
    assert study.config(full, "beibei", 1).training_options.lr == 1e-3


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_every_cell_has_a_first_run_before_any_has_a_second(sizes):
    class Fake:
        def __init__(self, cell, number):
            self.cell, self.number = cell, number

    jobs = [Fake(cell, number) for cell, size in enumerate(sizes) for number in range(size)]
    ordered = in_rounds(jobs)
    assert sorted(map(id, ordered)) == sorted(map(id, jobs))
    assert [job.number for job in ordered] == sorted(job.number for job in jobs)
    for cell in range(len(sizes)):
        assert [job.number for job in ordered if job.cell == cell] == list(range(sizes[cell]))


@pytest.mark.parametrize("name", shipped_studies())
def test_quick_studies_are_small(name, data_home):
    study = quick(Study.load(name))
    if study.kind == "accuracy":
        jobs = expand(study, ["demo"])
        assert 0 < len(jobs) < 40
        assert all(job.config.variant == "light" for job in jobs if job.config.model in ("missl", "mbssl"))
        assert all(job.config.training_options.epochs == 1 for job in jobs if job.config.model_class.trainable)
