"""What the system refuses, in our form: the hint moves the place that was refused."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from deploy import paths
from deploy.errors import UserError, from_system


def refused(path: Path) -> str | None:
    error = from_system(PermissionError(errno.EACCES, "Permission denied", str(path)))
    assert isinstance(error, UserError)
    assert error.where == str(path)
    return error.hint


def test_a_refused_place_is_moved_by_its_own_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(paths.state_dir() / "x") == "OWNWEIGHTS_HOME=/a/writable/folder ownweights deploy"
    assert refused(paths.hub_cache() / "models--a--b") == "HF_HUB_CACHE=/a/writable/folder ownweights deploy"
    monkeypatch.delenv("HF_HUB_CACHE")
    assert refused(paths.hub_cache() / "models--a--b") == "HF_HOME=/a/writable/folder ownweights deploy"


def test_a_refusal_without_a_file_has_no_place() -> None:
    assert from_system(PermissionError(errno.EPERM, "Operation not permitted")).where is None
