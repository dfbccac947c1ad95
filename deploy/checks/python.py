"""Checks of the Python that runs us: its version, and that our packages are ours alone."""

from __future__ import annotations

import sys
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import deploy
from deploy.checks import Context, Verdict, fail, ok, warn

OLDEST, NEWEST = (3, 11), (3, 14)
PACKAGES = ("deploy", "serving", "benchmarks")


def supported(_: Context) -> Verdict:
    return judge((sys.version_info.major, sys.version_info.minor))


def judge(version: tuple[int, int]) -> Verdict:
    """The versions that are tested."""
    seen = "{}.{}".format(*version)
    if version < OLDEST:
        return fail(f"{seen}, and 3.11 or newer is needed", "rm -rf .venv; make deploy PYTHON=python3.11")
    if version > NEWEST:
        return warn(f"{seen} is newer than what was tested (3.14)", "rm -rf .venv; make deploy PYTHON=python3.14")
    return ok(seen)


def packages(_: Context) -> Verdict:
    """Our package names are plain words: another distribution that ships one would overwrite our files unasked."""
    shipped = packages_distributions()
    home = Path(deploy.__file__).parents[1]
    for name in PACKAGES:
        others = sorted(set(shipped.get(name, ())) - {"ownweights"})
        if others:
            return fail(
                f"package `{name}` is also installed by: {', '.join(others)}",
                f"{sys.executable} -m pip uninstall {' '.join(others)}  # then `make deploy` again",
            )
        spec = find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).parents[1] != home:
            found = "nowhere" if spec is None else spec.origin or "a folder without code"
            return fail(f"package `{name}` is not ours: found at {found}", "unset PYTHONPATH")
    return ok(f"{', '.join(PACKAGES)} are ours alone")
