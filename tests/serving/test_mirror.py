"""The mirror: other boxes pull, lock and download from it as from a Hub, and get what is locked or nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec
import pytest
import uvicorn

from deploy import cli, lockfile
from deploy.errors import UserError
from deploy.lockfile import Licence, Lock, Model, Variant
from deploy.weights import cache, puller, verify
from deploy.weights.shelf import Shelf
from serving import mirror
from serving.mirror import Mirror
from tests import locked, tiny
from tests.hubserver import Repo, hub

LIMIT_S = 60
COMMIT = "1" * 40
WEIGHTS = locked.noise(3_000_000)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose model was locked and pulled from a Hub that is gone now; of its three files one is locked."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    files = {"tiny.gguf": tiny.gguf(tmp_path / "tiny.gguf"), "README.md": b"# tiny", "other.bin": b"1"}
    (folder / "models.toml").write_text(
        '[[model]]\nname = "chat"\nsource = "hf:org/tiny"\ncontext = 1024\n[engines]\ngpu = "none"\n'
    )
    with hub([Repo("org/tiny", files=files)]) as server, monkeypatch.context() as context:
        context.setenv("HF_ENDPOINT", server.url)
        assert cli.run(["lock"]) == 0
        assert cli.run(["pull"]) == 0
    return folder


def the_variant(folder: Path) -> Variant:
    return lockfile.read(folder / "models.lock").models[0].variants[0]


def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """On another box from here on, with this Hub."""
    monkeypatch.setenv("OWNWEIGHTS_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere" / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", endpoint)


@contextmanager
def mirroring() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`ownweights mirror` for the project here, as a process; its address is what it prints."""
    command = [sys.executable, "-m", "deploy.cli", "mirror", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


@contextmanager
def serving(*variants: Variant, page: int = 1000) -> Iterator[str]:
    """The same application in this process."""
    with mirror.listen("127.0.0.1:0") as listener:
        config = uvicorn.Config(Mirror(Shelf(variants), page).app, log_level="critical", lifespan="off")
        runner = uvicorn.Server(config)
        thread = threading.Thread(target=runner.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield mirror.url(listener)
        finally:
            runner.should_exit = True
            thread.join()


def ask(url: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case, body."""
    try:
        with urlopen(Request(url, method=method, headers=headers), timeout=LIMIT_S) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except HTTPError as error:
        with error:
            return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()


def pulled(repo: Repo, monkeypatch: pytest.MonkeyPatch, *paths: str) -> Variant:
    variant = locked.of(repo, *paths)
    with hub([repo]) as server, monkeypatch.context() as context:
        context.setenv("HF_ENDPOINT", server.url)
        puller.pull((variant,))
    return variant


@pytest.fixture
def variant(monkeypatch: pytest.MonkeyPatch) -> Variant:
    files = {"config.json": b'{"a": 1}', "model.gguf": WEIGHTS, "sub/notes.txt": b"notes"}
    return pulled(Repo("org/tiny", files=files), monkeypatch)


# Other boxes


def test_another_box_pulls_from_it_by_the_same_lock(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mirroring() as (url, _):
        elsewhere(tmp_path, monkeypatch, url)
        assert cli.run(["pull", "--locked"]) == 0
    assert verify.check(the_variant(project), full=True) == ()
    assert verify.provenance(the_variant(project)) == f"hub {url.removeprefix('http://')}"


def test_another_box_locks_from_it_the_same(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (project / "models.lock").read_bytes()
    with mirroring() as (url, _):
        elsewhere(tmp_path, monkeypatch, url)
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        (tmp_path / "other" / "models.toml").write_bytes((project / "models.toml").read_bytes())
        assert cli.run(["lock"]) == 0
    assert (tmp_path / "other" / "models.lock").read_bytes() == before


STOCK = """\
import sys
from huggingface_hub import HfApi, snapshot_download
print(snapshot_download("org/tiny"))
print([branch.name for branch in HfApi().list_repo_refs("org/tiny").branches])
"""


def test_the_stock_client_works_against_it(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = cache.blob(the_variant(project), the_variant(project).files[0]).read_bytes()
    with mirroring() as (url, _):
        elsewhere(tmp_path, monkeypatch, url)
        said = subprocess.check_output([sys.executable, "-c", STOCK], text=True, timeout=LIMIT_S).splitlines()
        hf = Path(sys.executable).with_name("hf")
        command = [str(hf), "download", "org/tiny", "tiny.gguf", "--local-dir", str(tmp_path / "there")]
        subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)
    snapshot = Path(said[0])
    assert snapshot.is_relative_to(tmp_path / "elsewhere")
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == {"tiny.gguf": content}
    assert said[1] == "['main']"
    assert (tmp_path / "there" / "tiny.gguf").read_bytes() == content


# The process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_what_it_serves_and_ends_when_told(project: Path, number: signal.Signals) -> None:
    with mirroring() as (url, process):
        assert ask(f"{url}/api/models/org/tiny")[0] == 200
        process.send_signal(number)
        _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert f"org/tiny at {COMMIT[:12]}: 1 file(s)" in said
    assert f"HF_ENDPOINT={url} ownweights deploy" in said
    assert "warning" not in said


def test_a_client_that_does_not_read_does_not_keep_it(project: Path) -> None:
    with mirroring() as (url, process):
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /org/tiny/resolve/main/tiny.gguf HTTP/1.1\r\nHost: x\r\n\r\n")
            client.recv(1)
            process.terminate()
            process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0


def test_nothing_on_disk_is_nothing_to_serve(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere(tmp_path, monkeypatch, "http://127.0.0.1:9")
    assert cli.run(["mirror", "--listen", "127.0.0.1:0"]) == 1
    assert "hint: ownweights pull" in capsys.readouterr().err


def test_what_is_not_as_locked_at_the_start_is_told_and_left_out(
    variant: Variant, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = Lock(generator="t", inputs="x", models=(Model(name="chat", requested="t", variants=(variant,)),))
    assert list(mirror.servable((lock, lock))) == [variant]
    cache.blob(variant, variant.files[1]).write_bytes(b"other")
    assert list(mirror.servable((lock,))) == []
    assert "chat gguf/Q4_K_M is not served: `model.gguf` changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address", ["8765", "127.0.0.1", "127.0.0.1:", ":8765", "127.0.0.1:99999", "no host:1", "h:" + "9" * 5000]
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(UserError) as caught:
        mirror.listen(address)
    assert "127.0.0.1:87" in (caught.value.hint or "")
    assert len(caught.value.message) < 150


def test_a_port_that_is_taken_is_told_with_its_holder() -> None:
    with mirror.listen("127.0.0.1:0") as first, pytest.raises(UserError, match=rf"pid {os.getpid()} .* has it"):
        mirror.listen(f"127.0.0.1:{first.getsockname()[1]}")


def test_an_address_for_everyone_is_loud(capsys: pytest.CaptureFixture[str]) -> None:
    mirror.listen("127.0.0.1:0").close()
    assert capsys.readouterr().err == ""
    with mirror.listen("0.0.0.0:0") as listener:
        assert mirror.url(listener) == f"http://{socket.gethostname()}:{listener.getsockname()[1]}"
    assert "warning: the mirror asks nobody who they are" in capsys.readouterr().err


# The Hub's words


def test_names_of_revisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commits of one repository are there: `main` is what was locked as such, and each commit is itself."""
    first = pulled(Repo("org/tiny", commit="a" * 40, files={"model.gguf": b"first"}), monkeypatch)
    second = pulled(Repo("org/tiny", commit="b" * 40, files={"model.gguf": b"second"}), monkeypatch)
    first = msgspec.structs.replace(first, origin=msgspec.structs.replace(first.origin, requested="v1"))
    for variants, main in (((first, second), "a" * 40), ((second, first), "b" * 40)):
        shelf = Shelf(variants)
        found = [shelf.find("org/tiny", name) for name in ("main", "v1", "a" * 40, "b" * 40)]
        assert [commit and commit.commit for commit in found] == [main, "a" * 40, "a" * 40, "b" * 40]
        assert shelf.branches("org/tiny") == {"v1": "a" * 40, "main": main}
    with serving(first, second) as url:
        assert ask(f"{url}/org/tiny/resolve/v1/model.gguf")[2] == b"first"
        assert ask(f"{url}/org/tiny/resolve/{'b' * 40}/model.gguf")[2] == b"second"


def test_a_description_carries_what_the_lock_knows(variant: Variant) -> None:
    origin = msgspec.structs.replace(variant.origin, repo_id="0123456789abcdef01234567")
    terms = Licence(id="LicenseRef-tiny", gated=True)
    with serving(msgspec.structs.replace(variant, origin=origin, licence=terms)) as url:
        found = json.loads(ask(f"{url}/api/models/org/tiny/revision/main?blobs=true")[2])
    assert (found["_id"], found["sha"], found["gated"]) == (origin.repo_id, COMMIT, "manual")
    assert (found["tags"], found["cardData"]) == (["license:other"], {"license_name": "tiny"})
    assert [sibling["size"] for sibling in found["siblings"]] == [file.size for file in variant.files]
    assert [("lfs" in sibling) for sibling in found["siblings"]] == [file.git is None for file in variant.files]


def test_a_tree_comes_in_pages(variant: Variant) -> None:
    repo = Repo("org/tiny", files={"config.json": b'{"a": 1}', "model.gguf": WEIGHTS, "sub/notes.txt": b"notes"})
    listed: list[object] = []
    with serving(variant, page=2) as url:
        following: str | None = f"{url}/api/models/org/tiny/tree/{COMMIT}?recursive=true"
        while following:
            status, headers, body = ask(following)
            assert status == 200
            listed += json.loads(body)
            following = headers["link"].partition("<")[2].partition(">")[0] if "link" in headers else None
        below = json.loads(ask(f"{url}/api/models/org/tiny/tree/main/sub")[2])
    # Every size and hash as the test's Hub has them, which knows the content.
    assert listed == [repo.entry(path) for path in repo.blobs]
    assert [entry["path"] for entry in below] == ["sub/notes.txt"]


@pytest.mark.parametrize("cursor", ["9" * 5000, "x", "-1", "4"])
def test_a_cursor_that_is_none_is_refused(variant: Variant, cursor: str) -> None:
    with serving(variant) as url:
        status, headers, _ = ask(f"{url}/api/models/org/tiny/tree/main?cursor={cursor}")
        assert (status, headers["x-error-message"]) == (400, "the cursor is none of this listing")
        assert json.loads(ask(f"{url}/api/models/org/tiny/tree/main?cursor=3")[2]) == []


def test_files_and_ranges_of_them(variant: Variant) -> None:
    with serving(variant) as url:
        weights = f"{url}/org/tiny/resolve/main/model.gguf"
        status, headers, body = ask(weights, "HEAD")
        assert (status, body) == (200, b"")
        assert headers["etag"] == headers["x-linked-etag"] == f'"{variant.files[1].sha256}"'
        assert headers["x-linked-size"] == headers["content-length"] == str(len(WEIGHTS))
        assert (headers["x-repo-commit"], headers["accept-ranges"]) == (COMMIT, "bytes")
        assert ask(weights)[2] == WEIGHTS
        status, headers, body = ask(weights, Range="bytes=2999990-")
        assert (status, body) == (206, WEIGHTS[2_999_990:])
        assert headers["content-range"] == "bytes 2999990-2999999/3000000"
        assert ask(weights, Range="bytes=0-9")[2] == WEIGHTS[:10]
        assert ask(weights, Range="bytes=3000000-")[0] == 416
        small = ask(f"{url}/org/tiny/resolve/main/config.json")[1]
        assert small["etag"] == f'"{variant.files[0].git}"'
        assert "x-linked-size" not in small


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/org/none/resolve/main/config.json", "RepoNotFound"),
        ("/api/models/org/none", "RepoNotFound"),
        ("/org/tiny/resolve/dev/config.json", "RevisionNotFound"),
        (f"/org/tiny/resolve/{'2' * 40}/config.json", "RevisionNotFound"),
        ("/org/tiny/resolve/main/none.json", "EntryNotFound"),
        ("/org/tiny/resolve/main/../../../../../../etc/passwd", "EntryNotFound"),
        ("/org/tiny/resolve/main/%2e%2e/%2e%2e/refs/pinned-111111111111", "EntryNotFound"),
        ("/org/tiny/resolve/main//etc/passwd", "EntryNotFound"),
        ("/org/tiny/resolve/main/config.json%00", "EntryNotFound"),
        ("/org/tiny/resolve/main/x%0dX-Evil:%201", "EntryNotFound"),
        ("/org/tiny/resolve/main/", "EntryNotFound"),
    ],
)
def test_only_exact_names_are_served(variant: Variant, path: str, code: str) -> None:
    with serving(variant) as url:
        status, headers, body = ask(url + path)
    assert (status, headers["x-error-code"]) == (404, code)
    assert headers["x-error-message"]
    assert "x-evil" not in headers
    assert b"root:" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_is_read_only(variant: Variant, method: str) -> None:
    with serving(variant) as url:
        assert ask(f"{url}/org/tiny/resolve/main/config.json", method)[0] == 405
        assert ask(f"{url}/api/models/org/tiny", method)[0] == 405


def test_a_blob_that_is_changed_meanwhile_is_not_served(variant: Variant, capfd: pytest.CaptureFixture[str]) -> None:
    blob = cache.blob(variant, variant.files[1])
    with serving(variant) as url:
        weights = f"{url}/org/tiny/resolve/main/model.gguf"
        with blob.open("r+b") as file:
            file.write(b"other")
        status, headers, body = ask(weights)
        assert (status, headers["x-error-code"]) == (404, "EntryNotFound")
        assert WEIGHTS[100:200] not in body
        assert "no longer as it is locked" in headers["x-error-message"]
        assert "`model.gguf` of org/tiny is not served" in capfd.readouterr().err
        blob.unlink()
        assert ask(weights)[0] == 404
        blob.write_bytes(WEIGHTS)
        assert ask(weights)[2] == WEIGHTS


def test_a_blob_that_is_hashed_again_holds_up_nobody_else(variant: Variant) -> None:
    """More clients wait for it than the server has threads, and it is read once for all of them."""
    blob = cache.blob(variant, variant.files[1])
    blob.unlink()
    # Whoever opens it to read waits until there is a writer.
    os.mkfifo(blob)
    with serving(variant) as url:
        clients = [HTTPConnection(url.removeprefix("http://"), timeout=LIMIT_S) for _ in range(45)]
        for client in clients:
            client.request("GET", "/org/tiny/resolve/main/model.gguf")
        try:
            assert ask(f"{url}/org/tiny/resolve/main/config.json")[2] == b'{"a": 1}'
            assert len([thread for thread in threading.enumerate() if thread.name.startswith("hash")]) == 1
        finally:
            writer = os.open(blob, os.O_RDWR)
        for client in clients:
            with client.getresponse() as answer:
                assert (answer.status, answer.headers["x-error-code"]) == (404, "EntryNotFound")
            client.close()
        os.close(writer)
