"""The operator's key file and the ring of known keys."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.errors import UserError
from serving.keys import PREFIX, Keyring, operator_key

MAKE = "import sys, pathlib; from serving.keys import operator_key; print(operator_key(pathlib.Path(sys.argv[1])))"


def test_made_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "state" / "operator.key"
    key = operator_key(file)
    assert key.startswith(PREFIX)
    assert len(key) == len(PREFIX) + 43
    assert operator_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["operator.key"]


def test_each_is_another(tmp_path: Path) -> None:
    assert operator_key(tmp_path / "a") != operator_key(tmp_path / "b")


def test_makers_at_the_same_time_agree(tmp_path: Path) -> None:
    file = tmp_path / "operator.key"
    makers = [
        subprocess.Popen([sys.executable, "-c", MAKE, str(file)], stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    keys = {maker.communicate(timeout=60)[0].strip() for maker in makers}
    assert keys == {operator_key(file)}
    assert [path.name for path in tmp_path.iterdir()] == ["operator.key"]


def test_open_to_others_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "operator.key"
    operator_key(file)
    file.chmod(0o640)
    with pytest.raises(UserError, match="read by others") as caught:
        operator_key(file)
    assert caught.value.hint == f"chmod 600 {file}"


@pytest.mark.parametrize("content", ["", "sk-ow-short", "hunter2" * 10, "sk-ow-" + "é" * 40])
def test_no_key_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "operator.key"
    file.write_text(content, encoding="utf-8")
    file.chmod(0o600)
    with pytest.raises(UserError, match="holds no key") as caught:
        operator_key(file)
    assert content == "" or content not in str(caught.value)


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(UserError, match="cannot be used") as caught:
        operator_key(tmp_path / "state" / "operator.key")
    assert "OWNWEIGHTS_HOME" in str(caught.value.hint)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be used"):
        operator_key(tmp_path / "operator.key")


def test_keyring() -> None:
    ring = Keyring(["sk-ow-one", "sk-ow-two"])
    assert ring.knows(b"sk-ow-one")
    assert ring.knows(b"sk-ow-two")
    assert not any(ring.knows(key) for key in (b"", b"sk-ow-three", b"sk-ow-on", b"sk-ow-one ", b"\xff" * 1000))
    assert not Keyring([]).knows(b"")
