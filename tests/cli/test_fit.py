"""`mbgraph fit`, `evaluate` and `models` as a user types them."""

import json
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from mbgraph.cli.main import cli

QUICK = ["--epochs", "2", "--batch-size", "64", "--set", "embedding_dim=8", "--set", "num_layers=1", "--quiet"]


@pytest.fixture(scope="session")
def folder(small_folder):
    return str(small_folder)


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("runs") / "run")
    result = CliRunner().invoke(cli, ["fit", folder, *QUICK, "--out", path, "--json"])
    assert result.exit_code == 0, result.output
    return path, json.loads(result.stdout)


def call(*arguments):
    return CliRunner().invoke(cli, list(arguments))


def fails(*arguments, code=2):
    """Run a command that must fail with one line, and return the line."""
    result = call(*arguments)
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.output
    assert "Traceback" not in result.output
    return lines[0]


def test_json_contract(run):
    path, outcome = run
    assert set(outcome) >= {
        "run", "dataset", "model", "variant", "seed", "epochs", "best_epoch", "seconds_per_epoch", "peak_memory_mb",
        "valid", "test", "users_evaluated",
    }  # fmt: skip
    assert (outcome["run"], outcome["dataset"], outcome["model"]) == (path, "small", "rmbrec")
    assert (outcome["variant"], outcome["seed"], outcome["epochs"]) == ("mbgraph", 2026, 2)
    assert set(outcome["test"]) >= {"HR@10", "NDCG@10", "HR@20", "NDCG@20"}
    assert "HR@10" in outcome["valid"]
    assert outcome["users_evaluated"] > 0


def test_evaluate_repeats_the_reported_figures(run):
    path, outcome = run
    result = call("evaluate", path, "--json")
    assert result.exit_code == 0, result.output
    again = json.loads(result.stdout)
    assert again["test"] == outcome["test"]
    assert again["valid"] == outcome["valid"]
    assert again["users_evaluated"] == outcome["users_evaluated"]


def test_evaluate_tables_and_other_policies(run, tmp_path):
    path, outcome = run
    shown = call("evaluate", path, "-k", "5", "--per-user", str(tmp_path / "ranks.npz"))
    assert shown.exit_code == 0, shown.output
    assert "HR@5" in shown.stdout
    assert "unvisited" in shown.stdout
    assert (tmp_path / "ranks.npz").exists()
    alone = json.loads(call("evaluate", path, "--split", "valid", "--json").stdout)
    assert alone["test"] == {}
    assert alone["valid"] == outcome["valid"]
    assert list(alone["details"]) == ["valid"]
    none = fails("evaluate", path, "--split", "valid", "--per-user", str(tmp_path / "more.npz"))
    assert none == "error: --per-user writes test pairs, and there are none; leave --per-user or --split out"
    strict = json.loads(call("evaluate", path, "--mask", "all-behaviors", "--json").stdout)
    assert strict["mask"] == "all-behaviors"


def test_table_and_plain_progress_in_a_pipe(folder, tmp_path):
    arguments = [option for option in QUICK if option != "--quiet"]
    result = call("fit", folder, *arguments, "--out", str(tmp_path / "r"))
    assert result.exit_code == 0, result.output
    assert "test visited" in result.stdout
    assert "epoch 1: loss" in result.stderr
    assert "regularizers: infonce x 1, rex x 1, l2 x 0.001" in result.stderr
    assert "\x1b[" not in result.output


def test_default_directory_is_named_and_numbered(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [json.loads(call("fit", folder, *QUICK, "--json").stdout)["run"] for _ in range(2)]
    assert names == ["runs/small-rmbrec-mbgraph-s2026", "runs/small-rmbrec-mbgraph-s2026-2"]


def test_flags_override_the_file(folder, tmp_path):
    (tmp_path / "c.toml").write_text('model = "lightgcn"\nseed = 4\n[training]\nepochs = 1\nlr = 0.5\n')
    arguments = ["fit", folder, "--config", str(tmp_path / "c.toml"), "--seed", "9", "--set", "lr=0.01"]
    outcome = json.loads(call(*arguments, "--quiet", "--json", "--out", str(tmp_path / "r")).stdout)
    assert (outcome["model"], outcome["seed"], outcome["epochs"]) == ("lightgcn", 9, 1)
    written = (tmp_path / "r" / "config.toml").read_text()
    assert "lr = 0.01" in written
    assert "weight_decay = 0.0" in written


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one child process on Windows")
def test_interrupt_leaves_a_run_that_resumes(folder, tmp_path):
    path = tmp_path / "run"
    words = f"fit {folder} --quiet --epochs 9999 --patience 9999 --set embedding_dim=8 --out {path}".split()
    process = subprocess.Popen(
        [sys.executable, "-c", "from mbgraph.cli.main import main; main()", *words],
        stderr=subprocess.PIPE,
        text=True,
        # a suite that runs in the background may have been started with interrupts ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        log = path / "metrics.jsonl"
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") >= 2):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "the run is usable" in errors
    assert f"mbgraph fit --resume {path}" in errors.replace("\n", "")
    assert json.loads(call("evaluate", str(path), "--json").stdout)["users_evaluated"] > 0


def test_bad_input_is_one_line_with_the_remedy(folder, run, tmp_path):
    path, _ = run
    out = ["--out", str(tmp_path / "never"), "--quiet"]
    assert "unknown model 'rmbrek'; did you mean 'rmbrec'?" in fails("fit", folder, "--model", "rmbrek", *out)
    assert "unknown variant of model 'rmbrec' 'papr'; did you mean 'paper'?" in fails(
        "fit", folder, "--variant", "papr", *out
    )
    assert "has no variants" in fails("fit", folder, "--model", "popularity", "--variant", "paper", *out)
    assert "did you mean 'num_layers'?" in fails("fit", folder, "--set", "num_layer=2", *out)
    assert "did you mean 'rex'?" in fails("fit", folder, "--regularizer", "rexx", *out)
    assert "did you mean 'weight'?" in fails("fit", folder, "--regularizer", "rex:weigth=1", *out)
    assert "is not trained and reads no training options" in fails(
        "fit", folder, "--model", "conversion", "--lr", "1", *out
    )
    assert "configuration key of model 'conversion'" in fails(
        "fit", folder, "--model", "conversion", "--set", "num_layers=2", *out
    )
    assert "unknown dataset 'smal'" in fails("fit", "smal", *out)
    assert "write it as key=value" in fails("fit", folder, "--set", "lr", *out)
    assert "k of the evaluation options must be a list of whole numbers" in fails("evaluate", path, "-k", "0")
    assert "unknown mask of the evaluation options 'train'" in fails("evaluate", path, "--mask", "train")
    assert "--resume takes the run's own configuration" in fails("fit", "--resume", path, "--lr", "1")
    assert "no run directory at" in fails("fit", "--resume", str(tmp_path / "gone"), code=1)
    assert "already exists and is not empty; continue it with --resume" in fails(
        "fit", folder, "--out", path, "--quiet"
    )
    assert not (tmp_path / "never").exists() or not list((tmp_path / "never").glob("model*"))


def test_models_lists_what_can_be_fitted():
    listed = json.loads(call("models", "--json").stdout)
    assert set(listed["models"]) >= {"rmbrec", "lightgcn", "popularity", "conversion"}
    assert listed["models"]["rmbrec"]["variants"] == ["mbgraph", "official", "paper"]
    assert set(listed["regularizers"]) >= {"infonce", "irmv1", "irmv2", "rex", "l2"}
    assert call("models").exit_code == 0


def test_models_shows_the_options_of_one():
    shown = json.loads(call("models", "lightgcn", "--json").stdout)
    options = {option["name"]: option for option in shown["options"]}
    assert options["num_layers"] == {
        "name": "num_layers",
        "type": "a whole number from 0 to 64",
        "default": 3,
        "doc": "Number of propagation steps.",
    }
    assert shown["training"]["sampler"] == "with-replacement"
    assert [entry["name"] for entry in shown["regularizers"]] == ["l2"]
    table = call("models", "infonce").stdout
    assert "one of both, anchor, other" in " ".join(table.split())
    assert "epochs" in call("models", "training").stdout
    assert "did you mean 'rmbrec'?" in fails("models", "rmbrek")


def test_flags_are_the_fields():
    """Every field of the run, of training and of the evaluation is a flag with its type, default and docstring."""
    from mbgraph.config import SECTIONS, FitConfig
    from mbgraph.evaluation.options import EvaluationOptions
    from mbgraph.models.options import TrainingOptions

    shown = " ".join(call("fit", "--help").stdout.split())
    for section in (FitConfig, TrainingOptions, EvaluationOptions):
        for fact in section.facts():
            if fact.name in ("dataset", "regularizers", *SECTIONS):
                continue
            flag = f"--{fact.name.replace('_', '-')} {fact.placeholder}"
            assert flag in shown
            words = shown[shown.index(flag) :].replace("- ", "-")
            start = "".join(fact.doc.replace("`", "").split())[:30]
            assert "".join(words.split())[len("".join(flag.split())) :].startswith(start), fact.name
    assert "[default: 2026]" in shown


def test_listing_commands_does_not_look_up_fields():
    code = "import sys\nfrom click.testing import CliRunner\nfrom mbgraph.cli.main import cli\n"
    code += "CliRunner().invoke(cli, ['--help'])\n"
    code += "sys.exit(str([name for name in ('torch', 'pydantic') if name in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_tables_show_the_cut_offs_that_were_used(folder, run, tmp_path):
    path, _ = run
    for arguments in (["--k", "5,50"], ["-k", "5", "-k", "50"], ["--k", "5,50,999"]):
        shown = call("evaluate", path, *arguments)
        assert shown.exit_code == 0, shown.output
        assert "HR@5 " in shown.stdout
        assert "HR@50 " in shown.stdout
        assert "HR@10" not in shown.stdout
    fitted = call("fit", folder, "--model", "popularity", "--k", "3,7", "--out", str(tmp_path / "r"), "--quiet")
    assert [word for word in fitted.stdout.split() if "@" in word] == ["HR@3", "NDCG@3", "HR@7", "NDCG@7"]
    assert "-" not in [cell.strip() for line in fitted.stdout.splitlines() for cell in line.split("│")]


def test_a_finished_run_is_extended(folder, tmp_path):
    path = str(tmp_path / "r")
    assert call("fit", folder, *QUICK, "--out", path).exit_code == 0
    extended = call("fit", "--resume", path, "--epochs", "3", "--quiet", "--json")
    assert extended.exit_code == 0, extended.output
    assert json.loads(extended.stdout)["epochs"] == 3
    assert "epochs = 3" in (tmp_path / "r" / "config.toml").read_text()
    assert "has trained 3 epochs, more than 1" in fails("fit", "--resume", path, "--epochs", "1")
    assert "epochs of the training options must be a whole number" in fails("fit", "--resume", path, "--epochs", "many")
    assert "threads of the configuration must be" in fails("fit", "--resume", path, "--threads", "-1")
    assert "beside it stand only --epochs, --patience and --threads" in fails("fit", "--resume", path, "--seed", "1")


def test_off_trains_with_it_off(folder, tmp_path):
    words = ["--set", "layer_norm=off", "--regularizer", "infonce:supported_only=no,include_positive=False"]
    outcome = call("fit", folder, *QUICK, *words, "--out", str(tmp_path / "r"))
    assert outcome.exit_code == 0, outcome.output
    written = (tmp_path / "r" / "config.toml").read_text()
    assert "layer_norm = false" in written
    assert "supported_only = false" in written
    assert "include_positive = false" in written

    from mbgraph.run import Run

    assert Run.load(tmp_path / "r").model().encoder.conv.layer_norm is False


def test_dry_run_says_what_it_would_take_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["fit", "--dry-run", "--json", "--set", "embedding_dim=16"])
    assert result.exit_code == 0, result.output
    planned = json.loads(result.stdout)
    assert planned["steps_per_epoch"] == 2
    assert planned["parameters"] == 16 * (2_000 + 1_000)
    assert planned["memory_mb"] == pytest.approx(sum(planned["memory"].values()), abs=1)
    assert planned["memory"]["training step"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("steps", "is_told"), [(100, False), (1_465, True)])
def test_dry_run_names_the_way_to_fewer_steps(capsys, steps, is_told):
    from mbgraph.cli.fit import show_plan

    sizes = {"memory": {"imports": 1.0}, "memory_mb": 1.0, "available_mb": 2.0, "device_mb": None}
    show_plan({**sizes, "parameters": 8, "steps_per_epoch": steps, "evaluation_block": 9})
    assert ("passes over the whole graph 1,465 times; --batch-size auto" in capsys.readouterr().err) == is_told


def test_dry_run_finds_mistakes(tmp_path):
    result = CliRunner().invoke(cli, ["fit", "--dry-run", "--set", "embedding_dim=15", "--set", "row_dtype=bfloat16"])
    assert result.exit_code == 2
    assert "row_dtype=bfloat16 needs an even embedding_dim, got 15" in result.stderr
