"""The wheelhouse: which wheels of a requirement set are here, and how the others come."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy import paths, wheelhouse
from deploy.errors import InstallError
from tests import locked
from tests.wheelhouse import Wheelhouse

SET = """\
# made by hand
here==1.0 \\
    --hash=sha256:{right} \\
    --hash=sha256:{other}
Name.With_dots==2.13.0+cpu ; sys_platform == '{platform}' and python_full_version >= '3.9' \\
    --hash=sha256:{other}
never==1.0 ; sys_platform == 'plan9' --hash=sha256:{other}
"""


def nothing(name: str, count: int, total: int) -> None:
    pass


def line(house: Wheelhouse, package: str) -> str:
    return f"{package}==1.0 --hash=sha256:{house.add(package, package.encode()).sha256}\n"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheelhouse:
    """pip's only source."""
    return Wheelhouse(tmp_path / "index", monkeypatch)


def test_a_set_is_read_with_its_markers_and_hashes(tmp_path: Path) -> None:
    path = tmp_path / "set.txt"
    path.write_text(SET.format(right="a" * 64, other="b" * 64, platform=sys.platform))
    first, second = wheelhouse.pins(path)
    assert (str(first), first.hashes) == ("here==1.0", {"a" * 64, "b" * 64})
    assert (str(second), second.hashes) == ("name-with-dots==2.13.0+cpu", {"b" * 64})


def test_what_is_missing_is_fetched_once(index: Wheelhouse, tmp_path: Path) -> None:
    requirements = tmp_path / "set.txt"
    requirements.write_text(line(index, "one") + line(index, "two"))
    assert [str(pin) for pin in wheelhouse.stock(requirements).missing] == ["one==1.0", "two==1.0"]
    wheels = wheelhouse.fetch(requirements, nothing)
    assert [path.name for path in wheels] == ["one-1.0-py3-none-any.whl", "two-1.0-py3-none-any.whl"]
    assert wheelhouse.stock(requirements) == (wheels, ())
    for path in index.folder.iterdir():
        path.unlink()
    assert wheelhouse.fetch(requirements, nothing) == wheels
    assert sorted(path.name for path in paths.wheelhouse_dir().iterdir() if path.suffix != ".whl") == [".lock"]


def test_wheels_for_others_and_damaged_ones_do_not_count(index: Wheelhouse, tmp_path: Path) -> None:
    requirements = tmp_path / "set.txt"
    requirements.write_text(line(index, "one"))
    (wheel,) = wheelhouse.fetch(requirements, nothing)
    for stranger in ("one-1.0-cp27-cp27m-win32.whl", "no_wheel.whl"):
        (wheel.parent / stranger).write_bytes(wheel.read_bytes())
    assert wheelhouse.stock(requirements).wheels == (wheel,)
    wheel.write_bytes(b"damaged")
    assert [str(pin) for pin in wheelhouse.stock(requirements).missing] == ["one==1.0"]
    assert wheelhouse.fetch(requirements, nothing) == (wheel,)
    assert not wheelhouse.stock(requirements).missing


def test_progress_is_heard(index: Wheelhouse, tmp_path: Path) -> None:
    requirements = tmp_path / "set.txt"
    found = index.add("one", locked.noise(600_000))
    requirements.write_text(f"one==1.0 --hash=sha256:{found.sha256}\n")
    heard: list[tuple[str, int, int]] = []
    with index.over_http():
        wheelhouse.fetch(requirements, lambda *step: heard.append(step))
    size = index.path("one").stat().st_size
    assert heard[-1] == ("one-1.0-py3-none-any.whl", size, size)


def test_an_index_without_a_package_is_told(index: Wheelhouse, tmp_path: Path) -> None:
    requirements = tmp_path / "set.txt"
    requirements.write_text(line(index, "one") + "two==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(InstallError, match=r"pip cannot download the wheels: .*two==1\.0") as caught:
        wheelhouse.fetch(requirements, nothing)
    assert caught.value.hint


def test_other_bytes_than_the_pinned_ones_are_refused(index: Wheelhouse, tmp_path: Path) -> None:
    requirements = tmp_path / "set.txt"
    index.add("one", b"other")
    requirements.write_text("one==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(InstallError, match="pip cannot download the wheels"):
        wheelhouse.fetch(requirements, nothing)
    assert wheelhouse.stock(requirements).wheels == ()
