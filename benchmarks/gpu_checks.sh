#!/bin/sh
# Everything that needs a graphics card, in one go of at most nine minutes: is it right, and how fast is it.
#
#   sh benchmarks/gpu_checks.sh OUT [DATASET ..]
#
# A Linux with a CUDA build of torch for PYTHON (default python3); what else is missing is installed, with PIP_FLAGS, for
# example --no-index --find-links FOLDER. DATASETs are looked for as always (docs/datasets.md); demo by default.
# OUT gets a log per part and speed_card*.csv. A part that takes too long is stopped and the next one begins.
set -u
out=${1:?"where to write: sh benchmarks/gpu_checks.sh OUT [DATASET ..]"}
shift
[ $# -gt 0 ] || set -- demo
PYTHON=${PYTHON:-python3}
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
export PYTHONPATH="$PWD" PYTHONUNBUFFERED=1
failed=0

# part SECONDS NAME COMMAND ..: run it, keep what it says, go on whatever comes of it
part() {
    seconds=$1 name=$2
    shift 2
    echo "== $name (at most $seconds s): $*"
    timeout -k 10 "$seconds" "$@" > "$out/$name.log" 2>&1
    code=$?
    tail -n 6 "$out/$name.log"
    [ $code -eq 0 ] || { failed=1; echo "== $name ended with $code"; }
}

missing=$("$PYTHON" - <<'PY'
from importlib.util import find_spec
needed = {"numpy": "numpy", "pandas": "pandas", "pyarrow": "pyarrow", "scipy": "scipy", "psutil": "psutil",
          "safetensors": "safetensors", "filelock": "filelock", "pydantic": "pydantic", "requests": "requests",
          "click": "click>=8.2", "rich": "rich", "tomli_w": "tomli-w", "numba": "numba", "pytest": "pytest",
          "xdist": "pytest-xdist", "hypothesis": "hypothesis"}
print(" ".join(package for module, package in needed.items() if find_spec(module) is None))
PY
)
# the quotes around the list and the flags are left out on purpose: they are several words
[ -z "$missing" ] || part 90 install "$PYTHON" -m pip install ${PIP_FLAGS:-} $missing
"$PYTHON" -c "import dgl" > /dev/null 2>&1 || export MBGRAPH_GRAPH=own
part 60 card "$PYTHON" -c 'import torch; torch.ones(1).cuda(); print(torch.cuda.get_device_name(), torch.__version__)'
[ $failed -eq 0 ] || { echo "no card, or no package: see $out"; exit 1; }

part 60 kernels "$PYTHON" -m pytest -q -p no:cacheprovider tests/_kernels/test_blocks.py
part 110 speed "$PYTHON" -m mbgraph bench speed "$@" --device cuda --part datasets -o "$out"
part 200 tests "$PYTHON" -m pytest -q -p no:cacheprovider -m cuda -n 8 tests/test_conformance.py
part 100 growth "$PYTHON" -m mbgraph bench speed --device cuda --part growth -o "$out"
exit $failed
