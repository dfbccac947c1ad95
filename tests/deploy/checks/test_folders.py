"""Our folders, on real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import paths
from deploy.checks import folders
from tests.deploy.checks.contexts import context


@pytest.mark.parametrize(
    ("variable", "name"), [("OWNWEIGHTS_HOME", "data"), ("HF_HUB_CACHE", "weights")], ids=["ours", "weights"]
)
def test_one_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, name: str) -> None:
    assert folders.writable(context()).status == "ok"
    assert not paths.data_dir().exists(), "looking leaves nothing behind"
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "inside"))
    verdict = folders.writable(context())
    assert verdict.status == "fail"
    assert f"the {name} folder" in verdict.seen
    assert verdict.hint == f"export {variable}=/a/writable/folder"


@pytest.mark.parametrize(("kind", "status"), [("ext4", "ok"), ("nfs4", "warn"), ("lustre", "warn"), (None, "skip")])
def test_locks_and_databases_want_a_local_disk(kind: str | None, status: str) -> None:
    verdict = folders.judge_locks(kind)
    assert verdict.status == status
    assert (verdict.hint == "export OWNWEIGHTS_HOME=/a/folder/on/a/local/disk") is (status == "warn")


def test_the_file_system_of_the_state_folder_is_found_before_it_exists() -> None:
    assert not paths.state_dir().exists()
    assert folders.locks(context()).status in ("ok", "warn")


@pytest.mark.parametrize(("mode", "status"), [(0o600, "ok"), (0o400, "ok"), (0o640, "fail"), (0o604, "fail")])
def test_a_key_that_others_may_read(mode: int, status: str) -> None:
    assert folders.key(context()).status == "skip"
    paths.key_file().parent.mkdir(parents=True)
    paths.key_file().write_text("secret")
    paths.key_file().chmod(mode)
    verdict = folders.key(context())
    assert verdict.status == status
    assert "secret" not in verdict.seen
    assert (verdict.hint == f"chmod 600 {paths.key_file()}") is (status == "fail")
