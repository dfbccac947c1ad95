"""The wheelhouse: packages of requirement sets as files, so that a bundle can carry them and installs need no index.

A requirement set is what `uv pip compile --generate-hashes` writes: one pin per package, markers for the machines
that need it, the sha256 of every build. A wheel counts only where it is built for this Python and hashes to a pin.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from deploy import digests, flock, paths, pip
from deploy.errors import InstallError
from deploy.pip import Arriving
from deploy.stop import Stop

HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
SCRATCH = ".scratch"


class Pin(NamedTuple):
    """A package of a set that this Python on this machine needs."""

    package: str
    version: str
    hashes: frozenset[str]

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"


class Stock(NamedTuple):
    """What of a set lies in the wheelhouse."""

    wheels: tuple[Path, ...]
    missing: tuple[Pin, ...]


def pins(requirements: Path) -> tuple[Pin, ...]:
    """The pins of a set whose markers hold here."""
    lines = re.sub(r"\\\n", " ", requirements.read_text(encoding="utf-8")).splitlines()
    return tuple(_pins(line for line in lines if line.strip() and not line.lstrip().startswith("#")))


def _pins(lines: Iterable[str]) -> Iterable[Pin]:
    for line in lines:
        requirement = Requirement(line.partition(" --hash")[0].strip())
        if requirement.marker is None or requirement.marker.evaluate():
            version = str(Version(str(requirement.specifier).removeprefix("==")))
            yield Pin(canonicalize_name(requirement.name), version, frozenset(HASH.findall(line)))


def stock(requirements: Path) -> Stock:
    """Which wheels of a set are here, each hashed now, and which pins have none."""
    builds = _builds()
    found = {pin: _right(pin, builds.get((pin.package, pin.version), ())) for pin in pins(requirements)}
    wheels = sorted(path for path in found.values() if path)
    return Stock(tuple(wheels), tuple(pin for pin, path in found.items() if path is None))


def _builds() -> dict[tuple[str, str], list[Path]]:
    """The wheels that this Python could install, by package and version."""
    builds: dict[tuple[str, str], list[Path]] = {}
    supported = set(sys_tags())
    for path in paths.wheelhouse_dir().glob("*.whl"):
        try:
            package, version, _, tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        if tags & supported:
            builds.setdefault((package, str(version)), []).append(path)
    return builds


def _right(pin: Pin, builds: Iterable[Path]) -> Path | None:
    return next((path for path in sorted(builds) if digests.of_file(path) in pin.hashes), None)


def fetch(requirements: Path, arriving: Arriving) -> tuple[Path, ...]:
    """Every wheel of a set for this Python; what is missing comes from the package index, by pip.

    Raises InstallError.
    """
    house = paths.wheelhouse_dir()
    with flock.held(house / ".lock", waiting="another ownweights fills the wheelhouse: waiting for it"):
        if stock(requirements).missing:
            _download(requirements, arriving)
        found = stock(requirements)
    if found.missing:
        raise InstallError(
            f"the package index gave no wheel of {', '.join(map(str, found.missing))} that hashes to its pin",
            where=str(requirements),
            hint="pip config debug  # shows which index is asked: a full mirror is needed",
        )
    return found.wheels


def _download(requirements: Path, arriving: Arriving) -> None:
    house = paths.wheelhouse_dir()
    scratch = house / SCRATCH
    # What a killed pip has left: its temporary files are as large as the wheels.
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        said, code = pip.download(requirements, house, scratch, arriving, Stop())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if code:
        errors = pip.errors(said) or said[-1:]
        raise InstallError(
            f"pip cannot download the wheels: {'; '.join(errors) or f'exit code {code}'}",
            where=str(requirements),
            hint="pip config debug  # shows the index, proxy and certificate in use; then run the same command again",
        )
