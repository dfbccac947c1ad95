"""How long `ownweights plan` takes with everything locked, beside a Python that only imports what any command needs.

Run by hand, in a folder with a models.toml and a current models.lock: `python -m tests.speed.plan [ROUNDS]`. Rounds are
interleaved, so that a noisy machine is noisy for both; the ratio is what counts.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

OWNWEIGHTS = Path(sys.executable).with_name("ownweights")
COMMANDS = {
    "plan": [str(OWNWEIGHTS), "plan", "--json"],
    "python": [sys.executable, "-c", "import click, msgspec"],
}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            ended = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
            if ended.returncode not in (0, 3):
                sys.exit(f"`{' '.join(command)}` ended with {ended.returncode}")
            taken[name].append(1000 * (time.perf_counter() - began))
    for name, times in taken.items():
        print(f"{name:7} median {statistics.median(times):4.0f} ms, {min(times):4.0f} to {max(times):4.0f}")
    print(f"ratio   {statistics.median(taken['plan']) / statistics.median(taken['python']):.2f}")


if __name__ == "__main__":
    main()
