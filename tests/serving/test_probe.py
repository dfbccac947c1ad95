from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serving import probe
from serving.engines import fake
from serving.probe import Outcome, Verdict
from tests.serving.watched import LIMIT_S


@asynccontextmanager
async def engine(path: Path, script: str) -> AsyncIterator[None]:
    serving = asyncio.create_task(fake.serve(path, script))
    try:
        while not path.exists():
            await asyncio.sleep(0.001)
        yield
    finally:
        serving.cancel()


def ask(path: Path, script: str, *, deadline_s: float = LIMIT_S) -> Verdict:
    async def scene() -> Verdict:
        async with engine(path, script):
            return await probe.one_token(str(path), "tiny", deadline_s=deadline_s)

    return asyncio.run(scene())


@pytest.mark.parametrize(
    ("script", "outcome", "detail"),
    [
        ("chunks=1", Outcome.TOKEN, ""),
        ("chunks=0", Outcome.BROKEN, "HTTP 200"),
        ("usage=false", Outcome.BROKEN, "HTTP 200"),
        ("answer=crash", Outcome.BROKEN, "HTTP 500"),
        ("answer=error", Outcome.BROKEN, "HTTP 200"),
        ("answer=html", Outcome.BROKEN, "HTTP 200"),
        ("answer=garbage", Outcome.BROKEN, "not HTTP"),
        ("drops=1", Outcome.BROKEN, "connection"),
    ],
)
def test_only_a_token_is_a_token(tmp_path: Path, script: str, outcome: Outcome, detail: str) -> None:
    verdict = ask(tmp_path / "e.sock", script)
    assert verdict.outcome is outcome
    assert detail in verdict.detail


def test_silence_has_a_deadline(tmp_path: Path) -> None:
    assert ask(tmp_path / "e.sock", "hold=true", deadline_s=0.2).outcome is Outcome.SILENT


def test_before_anybody_listens_it_is_loading(tmp_path: Path) -> None:
    verdict = asyncio.run(probe.one_token(str(tmp_path / "e.sock"), "tiny", deadline_s=1.0))
    assert verdict.outcome is Outcome.LOADING


def test_want_of_our_own_is_not_held_against_the_engine(tmp_path: Path) -> None:
    async def scene() -> Verdict:
        path = tmp_path / "e.sock"
        async with engine(path, ""):
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            # Every descriptor below the limit is in use: the loop's own are open already.
            held = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, hard))
            try:
                return await probe.one_token(str(path), "tiny", deadline_s=LIMIT_S)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for descriptor in held:
                    os.close(descriptor)

    assert asyncio.run(scene()).outcome is Outcome.UNTRIED


def test_503_is_loading(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async def scene() -> Verdict:
        path = str(tmp_path / "e.sock")
        async with await asyncio.start_unix_server(answer, path):
            return await probe.one_token(path, "tiny", deadline_s=LIMIT_S)

    assert asyncio.run(scene()).outcome is Outcome.LOADING
