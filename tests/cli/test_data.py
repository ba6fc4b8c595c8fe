import gzip
import io
import json

import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

from mbgraph.cli.data.reading import ReadingProgress
from mbgraph.cli.main import cli
from mbgraph.data.events import from_events
from mbgraph.data.formats.npz import read_npz, write_npz

LOG = pd.DataFrame(
    [
        *(("ann", item, "purchase", when) for when, item in enumerate(["tea", "mug", "pot", "cup"])),
        *(("bob", item, "purchase", when) for when, item in enumerate(["pot", "tea"])),
        ("ann", "tea", "purchase", 7),
        ("ann", "tea", "view", 1),
        ("bob", "cup", "view", 9),
        ("cem", "cup", "cart", 2),
    ],
    columns=["U", "I", "B", "T"],
)
COLUMNS = ("--user", "U", "--item", "I", "--behavior", "B", "--target", "purchase")


def run(*arguments):
    return CliRunner().invoke(cli, ["data", *map(str, arguments)])


@pytest.fixture
def log(tmp_path):
    LOG.to_csv(tmp_path / "events.csv", index=False)
    return tmp_path / "events.csv"


def test_import_as_the_library_does(log, tmp_path):
    result = run("import", log, *COLUMNS, "--time", "T", "-o", tmp_path / "shop")
    assert result.exit_code == 0, result.output
    wanted = from_events(LOG, user="U", item="I", behavior="B", time="T", target="purchase", name="shop")
    written = read_npz(tmp_path / "shop")
    assert written.content_hash() == wanted.content_hash()
    assert written.metadata == wanted.metadata
    assert written.name == "shop"
    assert written.users.ids.tolist() == ["ann", "bob", "cem"]
    assert "purchase (target, train)" in result.stdout
    assert "shop: split loo by time" in result.stdout
    assert "10 events read" in result.stderr
    assert "1 repeated events left out" in result.stderr
    assert "1 users kept who are in no split" in result.stderr
    assert "wrote" in result.stderr


def test_json(log, tmp_path):
    out = tmp_path / "shop"
    result = run("import", log, *COLUMNS, "--seed", 4, "--name", "store", "--json", "-o", out)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "out": str(out),
        "dataset": "store",
        "users": 3,
        "items": 4,
        "behaviors": ["view", "cart", "purchase"],
        "target": "purchase",
        "counts": {"view": 2, "cart": 1, "purchase": 3, "valid": 1, "test": 2},
        "split": "loo",
        "by": "random",
        "seed": 4,
        "cutoff": "none",
        "events": 10,
        "events_of_other_behaviors": 0,
        "repeated_events": 1,
        "users_in_no_split": 1,
        "users_without_held_out": 1,
    }


def test_options(tmp_path):
    frame = LOG.set_axis(["user", "item", "behavior", "T"], axis=1)
    frame.assign(part="train").to_parquet(tmp_path / "log.bin")
    out = tmp_path / "shop"
    options = (
        "--target",
        "purchase",
        "--behaviors",
        "purchase, view",
        "--cutoff",
        "target",
        "--split",
        "ratio:0.5,0.25,0.25",
    )
    result = run("import", tmp_path / "log.bin", *options, "--time", "T", "-o", out)
    assert result.exit_code == 0, result.output
    ds = read_npz(out)
    assert ds.behaviors == ("purchase", "view")
    assert ds.counts == {"purchase": 3, "view": 1, "valid": 2, "test": 1}
    assert "1 auxiliary pairs left out, later than a held-out pair" in result.stderr
    given = run("import", tmp_path / "log.bin", *options[:2], "--split-column", "part", "--force", "-o", out)
    assert given.exit_code == 0, given.output
    assert read_npz(out).counts == {"view": 2, "cart": 1, "purchase": 6}


def test_imported_data_can_be_named(log, data_home):
    assert run("import", log, *COLUMNS, "-o", data_home / "shop").exit_code == 0
    entries = json.loads(run("ls", "--json").stdout)
    assert [entry["name"] for entry in entries if entry["status"] in ("embedded", "on disk")] == ["demo", "shop"]
    assert entries[1]["counts"]["view"] == 2
    shown = run("ls")
    assert "embedded, synthetic" in shown.stdout
    assert "view 2, cart 1" in shown.stdout
    assert f"looked in: {data_home}" in shown.stderr


def test_ls_names_what_cannot_be_read(data_home):
    (data_home / "half").mkdir()
    (data_home / "half" / "meta.json").write_text("{")
    result = run("ls")
    assert result.exit_code == 0
    assert "cannot be read" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--user", "u"), "error: unknown column 'u'; did you mean 'U'?"),
        (("--target", "purchse"), "error: unknown target behavior 'purchse'; did you mean 'purchase'?"),
        (("--behaviors", "purchase,veiw"), "error: unknown behavior (it has no events) 'veiw'; did you mean 'view'?"),
        (("--split", "ratio:1,1,1"), "error: cannot read split 'ratio:1,1,1'; write it as ratio:0.7,0.2,0.1"),
        (("--cutoff", "target"), "error: cutoff 'target' needs times; name the time column"),
        (("--seed", "-1"), "-1 is not in the range 0<=x<=9223372036854775807"),
        (("--time", "I"), "error: column 'I' is named for two purposes"),
        (("--time", "B"), "error: column 'B' is named for two purposes"),
    ],
)
def test_errors_are_one_line_and_write_nothing(log, tmp_path, arguments, message):
    result = run("import", log, *COLUMNS, *arguments, "-o", tmp_path / "shop")
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if not line.startswith("reading")]
    assert len(lines) == 1
    assert message in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["events.csv"]


def test_missing_log(tmp_path):
    result = run("import", tmp_path / "none.csv", "--target", "buy", "-o", tmp_path / "shop")
    assert result.exit_code == 2
    assert "none.csv: No such file or directory; restore the file or correct the path" in result.stderr


def test_a_taken_folder_is_said_before_the_log_is_read(log, tmp_path, tiny):
    write_npz(tiny, tmp_path / "shop")
    result = run("import", tmp_path / "none.csv", "--target", "buy", "-o", tmp_path / "shop")
    assert result.exit_code == 2
    assert "shop already exists and is not empty; choose another folder or overwrite it (--force)" in result.stderr
    assert run("import", log, *COLUMNS, "-o", tmp_path / "shop", "--force").exit_code == 0
    assert read_npz(tmp_path / "shop").target == "purchase"
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "draft.tex").write_text("x")
    result = run("import", log, *COLUMNS, "-o", tmp_path / "papers", "--force")
    assert result.exit_code == 2
    assert "papers is no dataset folder (it holds draft.tex)" in result.stderr


def test_gzipped_log(log, tmp_path):
    (tmp_path / "events.csv.gz").write_bytes(gzip.compress(log.read_bytes()))
    for name in ("events.csv", "events.csv.gz"):
        result = run("import", tmp_path / name, *COLUMNS, "--time", "T", "-o", tmp_path / "shop", "--force")
        assert result.exit_code == 0, result.output
        assert read_npz(tmp_path / "shop").content_hash() == (
            from_events(LOG, user="U", item="I", behavior="B", time="T", target="purchase").content_hash()
        )


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("every", [0, 1000])
def test_progress_of_reading(terminal, every):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, _environ={"TERM": "xterm"})
    with ReadingProgress(console, every) as reading:
        for events in (1_000_000, 2_000_000):
            reading.update(events, events // 2, 1_000_000)
        reading.update(2_000_000, 1_000_000, 1_000_000)
    said = text.getvalue()
    if terminal:
        assert "100%" in said
        assert "2,000,000 events" in said
    elif every:
        assert said == ""
    else:
        lines = said.splitlines()
        assert lines[0].startswith("reading: 50%, 1,000,000 events, ")
        assert lines[1].startswith("reading: 100%, 2,000,000 events, ")
        assert lines[2].startswith("reading took 0 s")
        assert said.count("reading took") == 1
        assert "\x1b" not in said


def test_three_commands_from_a_log_to_recommendations(tmp_path):
    """Columns, dates and behaviors as REES46 writes them; answers are the shop's own ids, without what was bought."""
    log = pd.DataFrame(
        [
            (
                f"2019-10-{1 + (user + step) % 28:02d} 10:00:{user:02d} UTC",
                kind,
                1003460 + (user * step) % 12,
                512475 + user,
            )
            for user in range(20)
            for step in range(1, 9)
            for kind in (["view"], ["view", "cart"], ["view", "cart", "purchase"])[(user + step) % 3]
        ],
        columns=["event_time", "event_type", "product_id", "user_id"],
    )
    log.to_csv(tmp_path / "events.csv.gz", index=False)
    names = ("--time", "event_time", "--behavior", "event_type", "--item", "product_id", "--user", "user_id")
    imported = run("import", tmp_path / "events.csv.gz", *names, "--target", "purchase", "-o", tmp_path / "shop")
    assert imported.exit_code == 0, imported.output
    options = ("--model", "lightgcn", "--epochs", 1, "--quiet", "--out", tmp_path / "run")
    fitted = CliRunner().invoke(cli, ["fit", str(tmp_path / "shop"), *map(str, options)])
    assert fitted.exit_code == 0, fitted.output
    asked = ["recommend", str(tmp_path / "run"), "--user", "512477", "-k", "4", "--format", "csv"]
    answer = CliRunner().invoke(cli, asked)
    assert answer.exit_code == 0, answer.output
    table = pd.read_csv(io.StringIO(answer.stdout))
    assert table["user"].tolist() == [512477] * 4
    ds = read_npz(tmp_path / "shop")
    bought = ds.edges["purchase"].item[ds.edges["purchase"].user == ds.users.index_of([512477])[0]]
    assert len(bought)
    assert set(table["item"]) <= set(log["product_id"]) - set(ds.items[bought].tolist())
