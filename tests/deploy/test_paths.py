"""Places: XDG, moved by OWNWEIGHTS_HOME; sockets that fit into an address."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from deploy import paths
from deploy.errors import UserError


def test_ownweights_home_moves_everything_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNWEIGHTS_HOME", "/elsewhere")
    monkeypatch.delenv("UV_CACHE_DIR")
    ours = {name: path for name, path in paths.places().items() if name != "weights"}
    assert all(path.is_relative_to("/elsewhere") for path in ours.values()), ours


def test_xdg_directories_are_followed_and_relative_ones_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OWNWEIGHTS_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    assert paths.state_dir() == Path("/state/ownweights")
    assert paths.data_dir() == Path("/home/someone/.local/share/ownweights")


def test_weights_lie_where_the_hub_client_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert paths.hub_cache() == Path("/home/someone/.cache/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/hf")
    assert paths.hub_cache() == Path("/hf/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/cache")
    assert paths.hub_cache() == Path("/cache")


def test_a_long_state_folder_still_gives_a_socket_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNWEIGHTS_HOME", str(tmp_path / ("deep/" * 30)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = paths.run_dir(create=True)
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert len(str(run / "12345678.sock")) <= paths.SOCKET_PATH_BYTES
    assert run == paths.run_dir()


def test_a_socket_folder_that_is_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNWEIGHTS_HOME", str(tmp_path / ("deep/" * 30)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "target").mkdir()
    paths.run_dir().symlink_to(tmp_path / "target")
    with pytest.raises(UserError, match="belongs to someone else"):
        paths.run_dir(create=True)
