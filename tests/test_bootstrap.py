"""The first thing a new user runs: on an old Python, without venv, without an index, it says what is missing."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "bootstrap.py"

OLD = "import sys\nsys.version_info = (3, 9, 2, 'final', 0)\n"
NO_VENV = (
    "import importlib.util as util\n"
    "found = util.find_spec\n"
    "util.find_spec = lambda name, *rest: None if name == 'ensurepip' else found(name, *rest)\n"
)


def bootstrap(before: str) -> subprocess.CompletedProcess[str]:
    """Run it after ``before``, which makes this Python look like another."""
    run = (
        f"import runpy, sys\nsys.argv = ['bootstrap.py', 'core']\nrunpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    code = f"{before}\n{run}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_old_pythons_can_read_it() -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (OLD, "error: Python 3.9.2 is too old: ownweights needs at least 3.11\nhint: make PYTHON="),
        (NO_VENV, "has no venv module\nhint: apt-get install python3."),
    ],
)
def test_what_is_missing_is_one_error_with_a_hint(before: str, said: str) -> None:
    done = bootstrap(before)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_index_out_of_reach_is_told_and_the_next_run_goes_on(tmp_path: Path) -> None:
    for name in ("bootstrap.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "core.txt").write_text(f"nothing-like-it==1.0 --hash=sha256:{'0' * 64}\n")
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    call = [sys.executable, str(tmp_path / "bootstrap.py"), "core"]
    for expected in ("making .venv", "installing"):
        done = subprocess.run(call, env=os.environ | nowhere, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(expected)
        assert "error: the package index cannot be reached\nhint: pip config list" in done.stderr
    assert not list((tmp_path / ".venv").glob("ownweights-*"))
