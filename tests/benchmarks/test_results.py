from __future__ import annotations

import datetime
import json
from pathlib import Path

import msgspec
import pytest

from benchmarks import results
from benchmarks.results import Result
from deploy import paths
from deploy.errors import UserError
from tests.benchmarks.streams import cell, result, steady_records


@pytest.fixture
def whole() -> Result:
    return result(cell(steady_records(1, 12)))


def test_what_was_written_is_read_back(whole: Result, tmp_path: Path) -> None:
    path = results.write(whole, tmp_path / "new" / "folder" / "out.json")
    assert results.read(path) == whole
    assert [found.name for found in path.parent.iterdir()] == ["out.json"]


def test_by_default_it_goes_to_the_results_folder_under_its_time_and_id(whole: Result) -> None:
    assert results.write(whole) == paths.results_dir() / "20261124T070000Z-abababab.json"


def test_the_document_says_what_it_is(whole: Result, tmp_path: Path) -> None:
    document = json.loads(results.write(whole, tmp_path / "out.json").read_text())
    assert (document["kind"], document["schema"]) == ("ownweights-bench", 1)
    assert document["server"]["revision"] is None
    assert set(document["provenance"].values()) <= {"measured", "predicted", "user", "third-party"}


def test_the_newest_that_came_to_its_end(whole: Result, capsys: pytest.CaptureFixture[str]) -> None:
    results.write(whole)
    later = whole.started + datetime.timedelta(hours=1)
    results.write(msgspec.structs.replace(whole, started=later, valid=False, invalid_because="it was interrupted"))
    found, path = results.newest(paths.results_dir())
    assert (found, path.name) == (whole, "20261124T070000Z-abababab.json")
    assert "passing over 20261124T080000Z-abababab.json: it was interrupted" in capsys.readouterr().err


def test_no_result_yet() -> None:
    with pytest.raises(UserError) as caught:
        results.newest(paths.results_dir())
    assert caught.value.hint == "make bench"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not JSON", "not such JSON"),
        ("[]", "not such JSON"),
        ('{"kind": "something"}', "its `kind` is not"),
        ('{"kind": "ownweights-bench", "schema": 2}', "schema 2, this ownweights reads schema 1"),
        ('{"kind": "ownweights-bench", "schema": 1, "run_id": 5}', r"damaged: .*run_id"),
    ],
)
def test_another_file_is_refused_by_what_it_is(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        results.read(path)
    assert caught.value.where == str(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        results.read(tmp_path / "absent.json")


def test_a_place_that_cannot_be_written(whole: Result, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written") as caught:
        results.write(whole, tmp_path / "file" / "out.json")
    assert caught.value.hint == "--output FILE"
