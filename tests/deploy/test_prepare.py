"""What is said before the first byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import lockfile, prepare
from deploy.weights import cache
from tests import hubserver, locked
from tests.hubrepo import Repo

REPO = Repo("org/tiny-GGUF", files={"tiny.gguf": locked.noise(1 << 20)})
VARIANT = locked.of(REPO)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[hubserver.Hub]:
    with hubserver.hub([REPO]) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def test_what_two_models_share_is_announced_once(
    server: hubserver.Hub, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lock = lockfile.read(locked.lock_file(tmp_path, VARIANT))
    prepare.fetch_variants(lock, (VARIANT, VARIANT), only=None)
    said = [line for line in capsys.readouterr().err.splitlines() if "to fetch" in line]
    assert said == [f"  to fetch: 1 MB of 1 MB, from hub {server.url.removeprefix('http://')}"]


def test_to_announce_nothing_is_hashed(capsys: pytest.CaptureFixture[str]) -> None:
    blob = cache.blob(VARIANT, VARIANT.files[0])
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(VARIANT.size))
    prepare.announce(VARIANT, None)
    assert "to fetch" not in capsys.readouterr().err
    blob.write_bytes(bytes(1000))
    prepare.announce(VARIANT, None)
    assert "to fetch: 1 MB of 1 MB" in capsys.readouterr().err
