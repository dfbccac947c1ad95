"""A file that one process at a time works on, and what may lie in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import flock
from deploy.errors import UserError


def test_who_tries_gets_it_when_nobody_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with flock.held(path):
        assert not flock.idle(path)
        with flock.tried(path) as mine:
            assert mine is None
    assert flock.idle(path)
    with flock.tried(path) as mine:
        assert mine is not None


def test_who_tries_makes_no_file(tmp_path: Path) -> None:
    with flock.tried(tmp_path / "none") as mine:
        assert mine is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_its_place_is_left_alone_by_who_tries(tmp_path: Path) -> None:
    with flock.tried(tmp_path) as mine:
        assert mine is None
    assert not flock.idle(tmp_path)


@pytest.mark.parametrize(
    ("make", "said", "hint"),
    [
        (lambda path: path.symlink_to(path.with_name("target")), "a link is in the way of a file", "rm "),
        (lambda path: path.mkdir(), "a folder is in the way of a file", "rm -r "),
    ],
)
def test_what_is_in_its_place_is_refused_with_what_removes_it(
    tmp_path: Path, make: Callable[[Path], None], said: str, hint: str
) -> None:
    path = tmp_path / "a file"
    make(path)
    with pytest.raises(UserError, match=said) as raised, flock.held(path):
        pass
    assert raised.value.where == str(path)
    assert raised.value.hint == f"{hint}'{path}'"
    assert not (tmp_path / "target").exists()
