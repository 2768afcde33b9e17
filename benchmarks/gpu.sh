#!/usr/bin/env bash
# All that there is to measure on a CUDA device, in less than nine minutes:
#
#     bash benchmarks/gpu.sh FOLDER [FLAGS]
#
# The CUDA tests, then benchmarks/gpu.py, which gets the flags. Everything is written into FOLDER:
# tests.txt, table.md (the table so far, after every row) and log.txt. What is printed is short, and
# what matters comes last. PYTHON: the interpreter, if it is not python3.
set -euo pipefail
if [[ $# -eq 0 || $1 == -* ]]; then
    echo "error: into which folder? bash benchmarks/gpu.sh FOLDER [FLAGS]" >&2
    exit 2
fi
mkdir -p "$1"
folder="$(cd "$1" && pwd)"
shift
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
export PYTHONUNBUFFERED=1
if command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
fi
"$python" -c 'import torch; print(f"torch {torch.__version__}, CUDA {torch.version.cuda}")'

echo "tests named after CUDA, all of them in $folder/tests.txt:"
# without the options of pyproject.toml: pytest-xdist may be missing, and -q twice hides the count
timeout -k 5 150 "$python" -m pytest -o addopts=--import-mode=importlib -m "not slow" -k cuda \
    -q -rfE --tb=short > "$folder/tests.txt" 2>&1 || echo "they failed, or took over 150 s"
tail -n 15 "$folder/tests.txt" | cut -c 1-200

echo "measuring; what is known so far is in $folder/table.md"
code=0
"$python" -m benchmarks.gpu --seconds "$((520 - SECONDS))" --table "$folder/table.md" "$@" \
    2> "$folder/log.txt" || code=$?
if [[ $code -ne 0 ]]; then
    tail -n 5 "$folder/log.txt" >&2
fi
echo "next: python -m benchmarks.results --profile paper --minutes 8.5 --carry DIR"
exit "$code"
