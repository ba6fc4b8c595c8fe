"""Facts about the machine, with and without a kernel that tells them."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import mbgraph
from mbgraph import machine
from mbgraph.machine import available_memory_mb, cpu_name, package_version, package_versions, peak_memory_mb

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A kernel that tells what the test writes."""
    (tmp_path / "self").mkdir()
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    return tmp_path


def test_the_processor_is_named_as_the_kernel_does(proc):
    (proc / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast: One\nprocessor\t: 1\nmodel name\t: Other\n")
    assert cpu_name() == "Fast: One"
    (proc / "cpuinfo").write_text("processor\t: 0\n")
    assert cpu_name() == machine.platform.processor() or machine.platform.machine()


def test_without_a_kernel_that_tells(proc, monkeypatch):
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "abacus")
    assert cpu_name() == "abacus"
    assert peak_memory_mb() > 10  # from getrusage


def test_peak_memory_is_that_of_the_kernel(proc):
    (proc / "self" / "status").write_text("VmPeak:\t 9999 kB\nVmHWM:\t 2048 kB\nVmRSS:\t 1024 kB\n")
    assert peak_memory_mb() == 2.0


@pytest.mark.parametrize(("facts", "peak"), [({"peak_wset": 5 * 2**20}, 5.0), ({"rss": 1}, 0.0)])
def test_peak_memory_where_neither_kernel_nor_getrusage_tell(proc, monkeypatch, facts, peak):
    """As on Windows; and on something that nobody knows."""
    import psutil

    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: type("Facts", (), facts)())
    assert peak_memory_mb() == peak


def test_peak_memory_is_this_process_s_own():
    code = "from mbgraph.machine import peak_memory_mb; b = b'x' * (200 * 2**20); print(peak_memory_mb())"
    ballast = bytearray(700 * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])  # the parent is large while the child starts
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    del ballast
    assert 200 < float(shown) < 600


def test_available_memory_is_what_psutil_says(monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 3 * 2**20})())
    assert available_memory_mb() == 3.0


def test_versions():
    assert package_version("numpy") == metadata.version("numpy")
    assert package_version("no-such-package-at-all") is None
    assert package_versions(["numpy", "no-such-package-at-all"]) == {
        "numpy": metadata.version("numpy"), "no-such-package-at-all": "not installed",
    }  # fmt: skip


def test_the_package_has_one_version():
    """`mbgraph.__version__` is what the package index sees."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    written = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    assert 'attr = "mbgraph.__version__"' in text or (written and written[1] == mbgraph.__version__)


def test_asking_needs_no_torch():
    code = "import sys, json, mbgraph.machine as m; m.cpu_name(); m.available_memory_mb()\n"
    code += "print(json.dumps('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
