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
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    assert paths.state_dir() == Path("/state/ownweights")
    assert paths.data_dir() == Path("/home/someone/.local/share/ownweights")
    assert paths.catalogue_dir() == Path("/config/ownweights/catalog")


def test_weights_lie_where_the_hub_client_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert paths.hub_cache() == Path("/home/someone/.cache/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/hf")
    assert paths.hub_cache() == Path("/hf/hub")
    monkeypatch.setenv("HUGGINGFACE_HUB_CACHE", "/older")
    assert paths.hub_cache() == Path("/older")
    monkeypatch.setenv("HF_HUB_CACHE", "/cache")
    assert paths.hub_cache() == Path("/cache")


@pytest.mark.parametrize("value", ["$DISK/hub", "${DISK}/hub", "~/hub", "hub"])
@pytest.mark.parametrize("name", ["HF_HUB_CACHE", "HF_HOME", "OWNWEIGHTS_HOME"])
def test_a_place_is_one_wherever_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.chdir(tmp_path)
    for variable in ("HOME", "DISK"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv(name, value)
    place = paths.state_dir() if name == "OWNWEIGHTS_HOME" else paths.hub_cache()
    assert place == tmp_path / {"HF_HUB_CACHE": "hub", "HF_HOME": "hub/hub", "OWNWEIGHTS_HOME": "hub/state"}[name]


def test_every_place_that_holds_what_cannot_be_made_again_is_told() -> None:
    assert {paths.locks_dir(), paths.history_dir(), paths.stamps_file()} <= set(paths.places().values())


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


def test_a_home_that_nobody_has_is_a_name_like_another() -> None:
    assert paths.expanded("~nosuchuser/x") == Path.cwd() / "~nosuchuser/x"
