#!/bin/sh
# Writes constraints.txt anew: the newest versions that pyproject.toml allows, together, today.
#
# A build's local label (torch's +cpu) and what only CUDA builds need are left out: they differ between machines.
set -eu
cd "$(dirname "$0")/.."

python="${PYTHON:-.venv/bin/python}"
mkdir -p build
"$python" -m pip install --quiet --dry-run --ignore-installed --report build/resolved.json '.[dev]'
"$python" - <<'PYTHON' >constraints.txt
import json, re

resolved = json.load(open("build/resolved.json"))["install"]
pins = {found["metadata"]["name"]: found["metadata"]["version"].split("+")[0] for found in resolved}
print("# What ./run setup installs; written by scripts/constraints.sh.")
for name in sorted(pins, key=str.lower):
    if not re.match(r"(longrec|triton|nvidia-|cuda-)", name):
        print(f"{name}=={pins[name]}")
PYTHON
echo "constraints.txt: $(grep -c == constraints.txt) packages"
