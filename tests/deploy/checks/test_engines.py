"""Engines: their environments, their versions, and a program called ollama on a real PATH."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from deploy import environment
from deploy.checks import engines, floors
from deploy.environment import RECORD, Environment
from tests.deploy.checks.contexts import context, engine, model, plan


def test_an_engine_is_missing_there_or_without_its_python(tmp_path: Path) -> None:
    pinned = engine(tmp_path)
    found = context(plan=plan(model()), engines=(engine(tmp_path, "vllm", "0.33.0", "gpu"), pinned))
    assert engines.installed(context(engines=(pinned,))).status == "skip"
    verdict = engines.installed(found)
    assert (verdict.status, verdict.seen) == ("warn", "llamacpp 1.0 is not installed")
    home = environment.folder(pinned)  # type: ignore[arg-type]
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").symlink_to(sys.executable)
    record = Environment(
        engine="llamacpp", device="cpu", version="1.0", path=str(home), packages=1, size_bytes=1, install_s=1.0
    )
    (home / RECORD).write_bytes(msgspec.json.encode(record))
    assert engines.installed(found) == ("ok", "llamacpp 1.0 installed", None)
    (home / "bin" / "python").unlink()
    (home / "bin" / "python").symlink_to("/nowhere/python3")
    assert engines.installed(found).status == "warn"


@pytest.mark.parametrize(
    ("name", "version", "is_below"),
    [
        ("vllm", "0.31.9", True),
        ("vllm", "0.32.0rc1", True),
        ("vllm", "0.32.0+cpu", False),
        ("vllm", "0.100", False),
        ("ollama", "0.34.9", True),
        ("ollama", "0.35.0", False),
        ("ollama", "built from source", True),
        ("llamacpp", "0.0.1", False),
    ],
)
def test_floors(name: str, version: str, is_below: bool) -> None:
    assert (floors.below(name, version) is not None) is is_below


def test_an_engine_below_its_floor_fails_with_the_reason(tmp_path: Path) -> None:
    old = engine(tmp_path, "vllm", "0.31.0", "gpu")
    verdict = engines.versions(context(engines=(old,)))
    assert verdict.status == "fail"
    assert "vllm 0.31.0 is older than 0.32: open to CVE-" in verdict.seen
    assert verdict.hint is not None
    assert verdict.hint.startswith("git pull")


def test_an_old_engine_that_still_runs_is_replaced_by_a_deploy(tmp_path: Path) -> None:
    running = plan(model(engine="vllm", version="0.31.0", device="gpu"))
    verdict = engines.versions(context(plan=running, engines=(engine(tmp_path, "vllm", "0.33.0", "gpu"),)))
    assert verdict.status == "fail"
    assert verdict.hint is not None
    assert verdict.hint.startswith("ownweights deploy")


def test_only_what_is_planned_is_judged(tmp_path: Path) -> None:
    old = engine(tmp_path, "vllm", "0.31.0", "gpu")
    assert engines.versions(context(plan=plan(model()), engines=(old,))).seen == "llamacpp 1.0: none is below its floor"
    assert engines.versions(context()).status == "skip"


@pytest.mark.parametrize(
    ("told", "status", "says"),
    [
        ("ollama version is 0.35.1\n", "ok", "is 0.35.1"),
        ("ollama version is 0.35.1\nWarning: client version is 0.33.0\n", "warn", "is 0.33.0, older than 0.35.0"),
        ("Warning: could not connect\nWarning: client version is 0.36.0\n", "ok", "is 0.36.0"),
        ("something else", "warn", "does not tell its version"),
    ],
)
def test_an_ollama_of_the_users_own(told: str, status: str, says: str) -> None:
    verdict = engines.judge_ollama("/usr/bin/ollama", told)
    assert verdict.status == status
    assert says in verdict.seen
    assert (verdict.hint is not None) is (status == "warn")


def test_the_program_itself_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert engines.ollama(context()).status == "skip"
    program = tmp_path / "ollama"
    program.write_text("#!/bin/sh\necho 'Warning: client version is 0.33.0' >&2\n")
    program.chmod(0o700)
    verdict = engines.ollama(context())
    assert verdict.status == "warn"
    assert f"`{program}` is 0.33.0" in verdict.seen
    program.write_text("no program at all")
    assert "does not tell its version" in engines.ollama(context()).seen
