"""What several test modules share: a tiny dataset, where real data may lie, a home without any."""

from __future__ import annotations

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before numpy and torch load: several processes share the cores as it is
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.npz import write_npz
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.data.synthetic import Auxiliary, SyntheticConfig, generate

# As the command line does, before torch loads: OpenMP threads that spin for long take the cores from the compiled
# kernels and from whatever else a test machine is doing.
os.environ.setdefault("GOMP_SPINCOUNT", "4000")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
GOLDEN = Path(__file__).parent / "golden"

# A shared machine is slow now and then; slowness is not what the properties are about.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples in every run, so that a change is judged and not chance; `make test-all` draws new ones, and more.
settings.register_profile("mbgraph", _PATIENT, max_examples=50, derandomize=True)
settings.register_profile("explore", _PATIENT, max_examples=200)
settings.load_profile("mbgraph")


def pytest_configure(config):
    """Find the real datasets that may lie beside the repository before test modules ask the environment."""
    if "MBGRAPH_DATA" not in os.environ and (SHARED / "data").is_dir():
        os.environ["MBGRAPH_DATA"] = str(SHARED / "data")


def _pairs(*cells, start):
    users, items = np.array(cells, np.int64).T
    return Pairs(users, items, start + 10 * np.arange(len(cells), dtype=np.int64))


@pytest.fixture
def tiny() -> MultiBehaviorDataset:
    """Six users x five items by hand. User u5 and item i4 have no edge; u3 lacks carts.

    Held out: u0 buys i1 (valid, visited), u1 buys i3 (valid, unvisited), u0 buys i2 (test, unvisited),
    u2 buys i3 (test, visited) and i0 (test, unvisited), u3 buys i1 (test, unvisited).
    """
    return MultiBehaviorDataset(
        "tiny",
        Vocabulary([f"u{row}" for row in range(6)], kind="user"),
        Vocabulary([f"i{row}" for row in range(5)], kind="item"),
        {
            "view": _pairs((0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 0), (4, 3), (4, 0), start=0),
            "cart": _pairs((0, 1), (1, 1), (2, 3), (4, 3), start=200),
            "buy": _pairs((0, 0), (1, 1), (2, 2), (3, 0), (4, 3), start=400),
        },
        "buy",
        {
            "valid": _pairs((0, 1), (1, 3), start=600),
            "test": _pairs((0, 2), (2, 3), (2, 0), (3, 1), start=800),
        },
    )


@pytest.fixture
def shared_data() -> Path:
    """The folder with real datasets; skips the test where there is none."""
    folder = Path(os.environ.get("MBGRAPH_DATA", "")).expanduser()
    if not os.environ.get("MBGRAPH_DATA") or not folder.is_dir():
        pytest.skip("no real datasets: set MBGRAPH_DATA to their folder")
    return folder


def pytest_generate_tests(metafunc):
    """Run a test that asks for ``arrays`` on every set of arrays in ``golden/<GOLDEN of its module>``."""
    model = getattr(metafunc.module, "GOLDEN", None)
    if model is not None and "arrays" in metafunc.fixturenames:
        files = sorted((GOLDEN / model).glob("*.npz"))
        assert files, f"no arrays in {GOLDEN / model}"
        metafunc.parametrize("arrays", files, ids=[file.stem for file in files], indirect=True, scope="module")


@pytest.fixture(scope="module")
def arrays(request) -> dict[str, np.ndarray]:
    """Arrays that a published implementation produced, see tests/golden/README.md."""
    with np.load(request.param, allow_pickle=False) as stored:
        return dict(stored)


@pytest.fixture
def data_home(tmp_path, monkeypatch) -> Path:
    """An empty ``$MBGRAPH_DATA`` and an empty home, so that a test sees no dataset but its own."""
    home = tmp_path / "home"
    data = tmp_path / "data"
    home.mkdir()
    data.mkdir()
    for name in ("HOME", "USERPROFILE"):  # the second one on Windows
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("MBGRAPH_DATA", str(data))
    return data


@pytest.fixture(scope="session")
def small() -> MultiBehaviorDataset:
    """A generated dataset of 120 users x 50 items that models can learn from in a second."""
    auxiliary = {"view": Auxiliary(edges=1200, bar=0.55), "cart": Auxiliary(edges=360, bar=0.35)}
    return generate(SyntheticConfig(num_users=120, num_items=50, auxiliary=auxiliary), rng=3, name="small")


@pytest.fixture(scope="session")
def small_folder(small, tmp_path_factory) -> Path:
    """`small` on disk."""
    path = tmp_path_factory.mktemp("data") / "small"
    write_npz(small, path)
    return path
