"""`ownweights pull`: whose bytes, which variant, from where; its errors and exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from deploy import cli, config, lockfile, project
from deploy.weights import cache, verify
from serving.engines import ENGINES
from tests import hubserver, locked
from tests.hubserver import Repo

REPO = Repo("org/two-GGUF", files={"two-F16.gguf": locked.noise(5000), "two-Q8_0.gguf": locked.noise(3000)})
WISHES = "".join(f'[[model]]\nname = "{name}"\nsource = "hf:org/two-GGUF"\n' for name in ("chat", "spare"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[hubserver.Hub]:
    with hubserver.hub([REPO]) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def variants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, lockfile.Variant]:
    """A project of two models with two variants each, and a lock that fits it; by key."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "models.toml").write_text(WISHES)
    monkeypatch.chdir(folder)
    found = {key: msgspec.structs.replace(locked.of(REPO, f"two-{key}.gguf"), precision=key) for key in ("F16", "Q8_0")}
    models = tuple(
        lockfile.Model(
            name=name, aliases=(f"{name}-alias",), requested="hf:org/two-GGUF", variants=tuple(found.values())
        )
        for name in ("chat", "spare")
    )
    inputs = lockfile.inputs_digest(config.read(folder / config.FILE))
    pins = tuple(project.engine_pin(engine) for engine in ENGINES)
    lock = lockfile.Lock(generator="test", inputs=inputs, models=models, engines=pins)
    (folder / "models.lock").write_text(lockfile.write(lock))
    return found


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = cli.run(["pull", *args])
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def test_a_variant_needs_no_plan(
    server: hubserver.Hub, variants: dict[str, lockfile.Variant], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "chat-alias", "--variant", "gguf/Q8_0", "--locked", "--json")
    assert code == 0
    assert [file["fetched_bytes"] for file in json.loads(out)] == [3000]
    assert "to fetch: 3 kB of 3 kB, from hub 127.0.0.1:" in err
    assert "plan:" not in err
    assert verify.check(variants["Q8_0"]) == ()
    assert not verify.present(variants["F16"])


def test_a_variant_of_all_models_is_fetched_once(
    server: hubserver.Hub, variants: dict[str, lockfile.Variant], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "--variant", "gguf/F16")
    assert (code, len(out.splitlines()), len(server.requests)) == (0, 2, 1)


def test_what_the_lock_does_not_know_is_refused_with_what_it_knows(
    variants: dict[str, lockfile.Variant], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "chat", "--variant", "gguf/Q2_K")
    assert code == 1
    assert "no variant `gguf/Q2_K` of `chat` in the lock" in err
    assert "locked: gguf/F16, gguf/Q8_0" in err
    code, _, err = run(capsys, "--variant", "chat=gguf/F16")
    assert code == 1
    assert "`chat=gguf/F16` is not format/precision, for example safetensors/fp8" in err
    code, _, err = run(capsys, "chatt", "--variant", "gguf/F16")
    assert code == 1
    assert "no model `chatt`" in err
    assert "chat, spare" in err


def test_from_a_folder_of_this_machine(
    tmp_path: Path, variants: dict[str, lockfile.Variant], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "two-F16.gguf").write_bytes(locked.noise(5000))
    code, out, _ = run(capsys, "--variant", "gguf/F16", "--from", f"file:{tmp_path / 'stick'}")
    assert code == 0
    assert out.splitlines()[0].endswith(f"from file {tmp_path / 'stick' / 'two-F16.gguf'}")
    code, _, err = run(capsys, "--variant", "gguf/Q8_0", "--from", f"file:{tmp_path / 'stick'}")
    assert code == 1
    assert "two-Q8_0.gguf: cannot be read: No such file" in err


def test_from_an_address(
    server: hubserver.Hub,
    variants: dict[str, lockfile.Variant],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, _, err = run(capsys, "chat", "--variant", "gguf/F16", "--from", server.url.replace("//", "//user:secret@"))
    assert code == 0
    assert "secret" not in err
    assert len(server.requests) == 1


@pytest.mark.parametrize("command", ["pull", "deploy", "serve"])
def test_from_nowhere_names_the_forms(
    command: str, variants: dict[str, lockfile.Variant], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([command, "--from", "moon"]) == 1
    assert "hub, index, file, file:PATH, https://" in capsys.readouterr().err


def test_wrong_bytes_have_an_exit_code_of_their_own(
    server: hubserver.Hub, variants: dict[str, lockfile.Variant], capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault("*", flip=7)
    code, _, err = run(capsys, "chat", "--variant", "gguf/F16")
    assert code == 3
    assert f"expected sha256 {variants['F16'].files[0].sha256}, found " in err


def test_what_another_lock_had_begun_is_swept_and_what_this_one_names_is_not(
    server: hubserver.Hub, variants: dict[str, lockfile.Variant], capsys: pytest.CaptureFixture[str]
) -> None:
    later = cache.part(variants["Q8_0"], variants["Q8_0"].files[0])
    gone = later.with_name(f"{'0' * 64}.part")
    later.parent.mkdir(parents=True)
    for path in (later, gone):
        path.write_bytes(b"x" * 1000)
    code, _, err = run(capsys, "chat", "--variant", "gguf/F16")
    assert (code, later.exists(), gone.exists()) == (0, True, False)
    assert f"removed `{gone}`: 1 kB" in err
