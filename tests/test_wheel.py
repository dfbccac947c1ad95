"""The wheel holds the three packages with all their data, and not one name more that other wheels could clash with."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from serving.engines import ENGINES

ROOT = Path(__file__).parent.parent
PACKAGES = ("deploy", "serving", "benchmarks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Path in the wheel → content."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sources() -> dict[str, Path]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    return {path.relative_to(ROOT).as_posix(): path for path in files if path.parent.name != "__pycache__"}


def information(wheel: dict[str, bytes]) -> dict[str, bytes]:
    """What the wheel says of itself: name below ``*.dist-info`` → content."""
    return {name.partition(".dist-info/")[2]: content for name, content in wheel.items() if ".dist-info/" in name}


def test_top_level_names(wheel: dict[str, bytes]) -> None:
    top = {PurePosixPath(name).parts[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    assert len(top) == len(PACKAGES) + 1


def test_every_source_file_is_inside_unchanged(wheel: dict[str, bytes]) -> None:
    inside = {name for name in wheel if ".dist-info/" not in name}
    assert inside == set(sources())
    assert all(wheel[name] == path.read_bytes() for name, path in sources().items())


@pytest.mark.parametrize(
    "data", ["deploy/catalog/*.toml", "serving/engines/requirements/*.txt", "benchmarks/prices/*.toml"]
)
def test_data_that_is_read_at_run_time(wheel: dict[str, bytes], data: str) -> None:
    """Named here, so that moving it out of the packages is noticed."""
    assert any(PurePosixPath(name).match(data) for name in wheel)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: f"{engine.name}-{engine.device}")
def test_requirement_set_of_every_engine(wheel: dict[str, bytes], engine) -> None:
    assert engine.requirements.relative_to(ROOT).as_posix() in wheel


def test_command_and_licence(wheel: dict[str, bytes]) -> None:
    about = information(wheel)
    assert b"ownweights = deploy.cli:main" in about["entry_points.txt"]
    assert about["licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
