"""pip's downloads, as a child process that ends with us: nothing resolved, every hash required, progress read along."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from deploy import bound
from deploy.stop import Stop

STEP = re.compile(r"Progress (\d+) of (\d+)")
FILE = re.compile(r"(?:Downloading|Using cached) (\S+\.whl)")
OPTIONS = ("--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-cache-dir", "--progress-bar", "raw")

Arriving = Callable[[str, int, int], None]
"""Hears which wheel is under way, its bytes so far and all of them."""


def download(requirements: Path, into: Path, scratch: Path, arriving: Arriving, stop: Stop) -> tuple[list[str], int]:
    """The wheels of a requirement set, by the user's own index settings. What pip said, and its exit code.

    ``scratch`` is for its temporary files, which are as large as the wheels. ``stop`` kills it.
    """
    command = ["download", *OPTIONS, "-d", str(into), "-r", str(requirements)]
    with subprocess.Popen(
        bound.argv(sys.executable, "-P", "-m", "pip", *command),
        env=os.environ | {"TMPDIR": str(scratch), "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
    ) as pip:
        try:
            with stop.waking(pip.kill):
                said = list(_listen(pip.stdout, arriving)) if pip.stdout else []
                return said, pip.wait()
        except BaseException:
            pip.kill()
            raise


def errors(said: list[str]) -> list[str]:
    """The lines by which pip says what went wrong."""
    return [line.removeprefix("ERROR:").strip() for line in said if line.startswith("ERROR:")]


def _listen(lines: IO[str], arriving: Arriving) -> Iterator[str]:
    """What is no progress."""
    name = ""
    for line in lines:
        if step := STEP.match(line):
            arriving(name, int(step[1]), int(step[2]))
            continue
        if file := FILE.search(line):
            name = file[1].rpartition("/")[2]
        yield line.strip()
