"""Whole or not there, and nothing beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import atomic


def test_a_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    for content in (b"one", b"two"):
        atomic.write(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        atomic.write(tmp_path / "folder", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_it_writes_in_can_be_another_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic.write(tmp_path / "refs" / "main", b"", scratch=tmp_path / "gone")
    (tmp_path / "here").mkdir()
    atomic.write(tmp_path / "refs" / "main", b"", scratch=tmp_path / "here")
    assert (tmp_path / "refs" / "main").exists()
    assert list((tmp_path / "here").iterdir()) == []
