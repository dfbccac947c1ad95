from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import endpoint
from deploy import paths
from deploy.errors import UserError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (endpoint.URL_VARIABLE, endpoint.KEY_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


def serve(host: str = "127.0.0.1", port: int = 8000, key: str = "operators\n") -> None:
    paths.service_file().parent.mkdir(parents=True)
    paths.service_file().write_text(f'{{"pid": 1, "host": "{host}", "port": {port}}}')
    paths.key_file().write_text(key)


def test_what_is_deployed_here_with_the_operators_key() -> None:
    serve()
    found = endpoint.resolve(None, None)
    assert (found.base_url, found.key) == ("http://127.0.0.1:8000/v1", "operators")


@pytest.mark.parametrize(
    ("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("box", "box")]
)
def test_a_server_that_listens_everywhere_is_asked_on_loopback(host: str, reached: str) -> None:
    serve(host=host)
    assert endpoint.resolve(None, None).base_url == f"http://{reached}:8000/v1"


def test_the_operators_key_goes_nowhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve()
    assert endpoint.resolve("https://other.example/v1", None).key is None
    monkeypatch.setenv(endpoint.KEY_VARIABLE, "of-the-environment")
    assert endpoint.resolve("https://other.example/v1", None).key == "of-the-environment"
    (tmp_path / "key").write_text("of-the-file")
    assert endpoint.resolve("https://other.example/v1", tmp_path / "key").key == "of-the-file"


def test_the_environment_names_one_where_nothing_is_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(endpoint.URL_VARIABLE, "http://there.example:9/v1/")
    assert endpoint.resolve(None, None).base_url == "http://there.example:9/v1"


def test_nothing_to_measure_says_how_to_get_something() -> None:
    with pytest.raises(UserError) as caught:
        endpoint.resolve(None, None)
    assert (caught.value.hint or "").startswith("make deploy")


def test_a_damaged_service_record_is_named() -> None:
    serve()
    paths.service_file().write_text('{"port": "x"}')
    with pytest.raises(UserError) as caught:
        endpoint.resolve(None, None)
    assert caught.value.where == str(paths.service_file())


@pytest.mark.parametrize("content", ["", "two\nlines", "schlüssel"])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(UserError, match="does not hold a key"):
        endpoint.resolve("http://x", tmp_path / "key")


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://x:1", "http://x:1/v1"),
        ("http://x:1/", "http://x:1/v1"),
        ("https://x/api/openai/", "https://x/api/openai"),
    ],
)
def test_v1_is_added_where_no_path_was_given(url: str, normal: str) -> None:
    assert endpoint.normal(url) == normal


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://me:secret@x/v1"])
def test_other_urls_are_refused_without_repeating_a_password(url: str) -> None:
    with pytest.raises(UserError) as caught:
        endpoint.normal(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://x/v1", False),
    ],
)
def test_loopback_is_this_machine(url: str, here: bool) -> None:
    assert endpoint.is_here(url) is here
