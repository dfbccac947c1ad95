"""The Python that runs us, and packages of the same names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy.checks import python
from tests.deploy.checks.contexts import context


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 14), "ok"), ((3, 15), "warn"), ((4, 0), "warn")]
)
def test_versions(version: tuple[int, int], status: str) -> None:
    verdict = python.judge(version)
    assert verdict.status == status
    assert (verdict.hint is None) is (status == "ok")


def test_the_one_that_runs_this_is_supported() -> None:
    assert python.supported(context()).seen.startswith(f"3.{sys.version_info.minor}")


def distribution(site: Path, name: str, package: str) -> None:
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "top_level.txt").write_text(f"{package}\n")


def test_another_distribution_with_one_of_our_packages_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "site")
    distribution(tmp_path / "site", "ownweights", "benchmarks")
    assert python.packages(context()).status == "ok"
    distribution(tmp_path / "site", "spurious", "benchmarks")
    verdict = python.packages(context())
    assert (verdict.status, verdict.seen) == ("fail", "package `benchmarks` is also installed by: spurious")
    assert verdict.hint is not None
    assert f"{sys.executable} -m pip uninstall spurious" in verdict.hint


def test_a_folder_on_the_path_that_hides_one_of_our_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere" / "benchmarks").mkdir(parents=True)
    (tmp_path / "elsewhere" / "benchmarks" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "benchmarks", raising=False)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    verdict = python.packages(context())
    assert (verdict.status, verdict.hint) == ("fail", "unset PYTHONPATH")
    assert str(tmp_path / "elsewhere") in verdict.seen
