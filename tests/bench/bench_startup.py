"""Startup time of Python, of `import ashnets`, and of the commands that load no torch."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

CASES = {
    "python -c pass": ["-c", "pass"],
    "import typer": ["-c", "import typer"],
    "import ashnets": ["-c", "import ashnets"],
    "ashnets --help": ["-m", "ashnets", "--help"],
    "ashnets list": ["-m", "ashnets", "list"],
}
ROUNDS = 9


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    print(f"median of {ROUNDS} runs, milliseconds")
    for name, arguments in CASES.items():
        print(f"  {name:<16} {1000 * statistics.median(seconds(arguments) for _ in range(ROUNDS)):6.0f}")


if __name__ == "__main__":
    main()
