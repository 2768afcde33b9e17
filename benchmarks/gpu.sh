#!/usr/bin/env bash
# All that there is to measure on a CUDA device, in less than eight minutes: the CUDA tests, then
# benchmarks/gpu.py, to which the arguments go. PYTHON: the interpreter, if it is not python3.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
export PYTHONUNBUFFERED=1
if command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
fi
"$python" -c 'import torch; print(f"torch {torch.__version__}, CUDA {torch.version.cuda}")'
echo "tests named after CUDA:"
timeout -k 5 100 "$python" -m pytest -q -k cuda -rfE --tb=short 2>&1 | tail -n 40 || true
exec "$python" -m benchmarks.gpu --seconds "$((440 - SECONDS))" "$@"
