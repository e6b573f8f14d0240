"""`python -m benchmarks` lists the benchmarks and runs each with --quick; with arguments it runs those named.

python -m benchmarks [NAME ...] [--list]
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from pathlib import Path

_FOLDER = Path(__file__).parent
NAMES = ("load", "encode", "serve", "stages", "ingest", "ranker", "needles", "cost", "mixers", "rebuild")


def line(name: str) -> str:
    """What a benchmark measures: the first sentence of its module, which is not imported for that."""
    text = ast.get_docstring(ast.parse((_FOLDER / f"{name}.py").read_text("utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def run(name: str) -> int:
    """Its exit code; a process of its own, so that no benchmark warms what another measures."""
    print(f"\n{name}: {line(name)}", flush=True)
    return subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--quick"], check=False).returncode


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run benchmarks, each with --quick.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    for name in NAMES:
        print(f"{name:8s} {line(name)}")
    if not options.list:
        failed = [name for name in options.names or NAMES if run(name)]
        sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
