"""The door, the small routes, and HTTP that tries to be something else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from serving import gateway
from serving.board import State
from tests.serving.rig import CHAT, KEY, Answer, Conversation, Rig, body, play, post, request

GUARDED = ["/", "/status", "/v1/models", "/v1/models/chat", "/metrics", CHAT, "/docs", "/openapi.json", "/nothing"]


@pytest.mark.parametrize("path", GUARDED)
def test_everything_needs_the_key(tmp_path: Path, path: str) -> None:
    async def scene(rig: Rig) -> None:
        for method in ("GET", "POST"):
            for key in (None, "", "sk-ow-wrong", "Bearer", "a" * 20_000):
                answer = await (await rig.open(request(method, path, key=key))).answer()
                assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        raw = request("GET", path, key=None, headers=f"authorization: Bearer {KEY}\r\nauthorization: Bearer {KEY}\r\n")
        assert (await (await rig.open(raw)).answer()).status == 401
        raw = request(
            "GET", path, key=None, headers="authorization: Bearer \xff\xfe\r\n".encode("latin-1").decode("latin-1")
        )
        assert (await (await rig.open(raw)).answer()).status == 401
        assert (await rig.stats())["path"] == ""

    play(scene, tmp_path)


def test_no_second_http_stack_and_no_middleware_on_the_path() -> None:
    """Either would cost several times what the whole gateway does."""
    program = "import sys, serving.gateway as g; print(*sys.modules, sep='\\n')"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"httpx", "httpx2", "aiohttp", "requests"} & set(modules)
    source = Path(gateway.__file__).read_text()
    assert "middleware" not in source


def test_alive_and_ready_need_none(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        assert (await rig.get("/healthz", key=None)).status == 200
        ready = await rig.get("/readyz", key=None)
        assert ready.status == 200
        assert ready.json == {"ready": True, "models": [{"id": "chat", "state": "ready"}]}
        rig.entry.state, rig.entry.detail = State.FAILED, "out of memory in a folder"
        ready = await rig.get("/readyz", key=None)
        assert ready.status == 503
        assert ready.json == {"ready": False, "models": [{"id": "chat", "state": "failed"}]}
        assert (await rig.get("/healthz", key=None)).status == 200
        (status,) = (await rig.get("/status")).json["models"]
        assert (status["state"], status["detail"]) == ("failed", "out of memory in a folder")

    play(scene, tmp_path)


def test_models(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        listing = (await rig.get("/v1/models")).json
        assert listing["object"] == "list"
        (model,) = listing["data"]
        assert model == {
            "id": "chat",
            "object": "model",
            "created": 1,
            "owned_by": "ownweights",
            "context_length": 1024,
            "max_model_len": 1024,
            "slots": 2,
            "revision": "r1",
            "engine": "fake 1",
            "lock": "0123456789ab",
            "aliases": ["gpt-4", "org/chat"],
        }
        for name in ("chat", "gpt-4", "org/chat"):
            assert (await rig.get(f"/v1/models/{name}")).json == model
        missing = await rig.get("/v1/models/org/other")
        assert (missing.status, missing.error["code"]) == (404, "model_not_found")

    play(scene, tmp_path)


def test_metrics(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        await rig.ask()
        await rig.get("/v1/models", key="wrong")
        held = await rig.say(script="hold=true")
        await rig.until(lambda: rig.entry.running == 1)
        answer = await rig.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = answer.body.decode().splitlines()
        for line in (
            'ownweights_requests_total{model="chat",status="200"} 1.0',
            'ownweights_requests_total{model="none",status="401"} 1.0',
            'ownweights_tokens_total{kind="prompt",model="chat",source="engine"} 7.0',
            'ownweights_tokens_total{kind="cached",model="chat",source="engine"} 3.0',
            'ownweights_tokens_total{kind="completion",model="chat",source="engine"} 4.0',
            'ownweights_ttft_seconds_count{model="chat"} 1.0',
            'ownweights_request_duration_seconds_count{model="chat"} 1.0',
            'ownweights_running_requests{model="chat"} 1.0',
            'ownweights_queued_requests{model="chat"} 0.0',
            'ownweights_engine_state{model="chat",state="ready"} 1.0',
            'ownweights_engine_state{model="chat",state="failed"} 0.0',
        ):
            assert line in lines
        await held.leave()

    play(scene, tmp_path)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("PUT", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/healthz", 405),
        ("GET", "/nothing", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("POST", "/v1/../v1/chat/completions", 404),
        ("POST", "/v1/../api/pull", 404),
        ("POST", "/v1/%2e%2e/api/pull", 404),
        ("POST", "//v1/chat/completions", 404),
        ("POST", "/v1//chat/completions", 404),
        ("POST", "/v1/chat/completions;x=1", 404),
        ("POST", "/V1/CHAT/COMPLETIONS", 404),
        ("POST", "/v1/chat/completions%00", 404),
        ("POST", "/api/pull", 404),
        ("POST", "/metrics", 405),
        ("POST", "/slots/0?action=save", 404),
        ("POST", "/v1/tokenize", 404),
    ],
)
def test_other_paths_and_methods_are_not_the_engines(tmp_path: Path, method: str, path: str, status: int) -> None:
    async def scene(rig: Rig) -> None:
        raw = request(method, path, body(), headers="x-http-method-override: POST\r\nhost: chat\r\n")
        answer = await (await rig.open(raw)).answer()
        assert answer.status == status
        assert answer.error["type"] == "invalid_request_error"
        assert (status == 405) == ("allow" in answer.headers)
        assert (await rig.stats())["path"] == ""

    play(scene, tmp_path)


@pytest.mark.parametrize("target", [f"http://evil.example{CHAT}", f"{CHAT}?x=/api/pull", "/v1/%63hat/completions"])
def test_other_spellings_of_a_path_reach_the_engine_as_ours(tmp_path: Path, target: str) -> None:
    async def scene(rig: Rig) -> None:
        answer = await (await rig.open(post(target, body()))).answer()
        assert answer.status == 200
        assert (await rig.stats())["path"] == CHAT

    play(scene, tmp_path)


LENGTH = len(body())


@pytest.mark.parametrize(
    "raw",
    [
        post(CHAT, body(), headers="transfer-encoding: chunked\r\n"),
        post(CHAT, body(), headers=f"content-length: {LENGTH}\r\n"),
        post(CHAT, body()).replace(b"content-length: ", b"content-length: -"),
        post(CHAT, body()).replace(b"content-length: ", b"content-length: +"),
        post(CHAT, body(), headers="x: a\x00b\r\n"),
        post(CHAT, body(), headers="x: a\r\n folded\r\n"),
        post(CHAT, body()).replace(b"host: gateway\r\n", b""),
        post(CHAT, body()).replace(b"\r\n", b"\n"),
        post(CHAT, body(), headers="transfer-encoding: gzip\r\n").replace(b"content-length", b"x"),
        request("POST", CHAT, headers="transfer-encoding: chunked\r\n") + b"fffffffffffffffff\r\nx\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        post("/v1/x", body()).replace(b"/v1/x", b"/v1/\xff"),
    ],
    ids=range(13),
)
def test_malformed_http_is_400_and_reaches_nobody(tmp_path: Path, raw: bytes) -> None:
    async def scene(rig: Rig) -> None:
        conversation = await rig.open(raw)
        assert (await conversation.head()).status == 400
        assert (await rig.stats())["path"] == ""
        assert (await rig.ask()).status == 200

    play(scene, tmp_path)


@pytest.mark.parametrize("headers", ["x: " + "y" * 40_000 + "\r\n", "x: y\r\n" * 200])
def test_headers_beyond_reason(tmp_path: Path, headers: str) -> None:
    async def scene(rig: Rig) -> None:
        for path in (CHAT, "/healthz"):
            answer = await (await rig.open(post(path, body(), headers=headers))).answer()
            assert answer.status == 431

    play(scene, tmp_path)


def test_http_1_0(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        raw = post(CHAT, body()).replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"host: gateway\r\n", b"")
        conversation = await rig.open(raw)
        answer = await conversation.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await conversation.reader.read() == b""

    play(scene, tmp_path)


def test_pipelined_requests_are_answered_one_by_one(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        conversation = await rig.open(
            post(CHAT, body(seed=1)) + request("GET", "/v1/models") + post(CHAT, body(seed=2))
        )
        answers: list[Answer] = [await conversation.answer() for _ in range(3)]
        assert [answer.status for answer in answers] == [200] * 3
        assert "object" in answers[1].json

    play(scene, tmp_path)


@pytest.mark.parametrize(
    "headers", ["connection: upgrade\r\nupgrade: websocket\r\n", "connection: upgrade\r\nupgrade: h2c\r\n"]
)
def test_upgrades_are_not_made(tmp_path: Path, headers: str) -> None:
    async def scene(rig: Rig) -> None:
        answer = await (await rig.open(request("GET", "/v1/models", headers=headers))).answer()
        assert answer.status == 200

    play(scene, tmp_path)


def test_thousands_of_half_open_connections_do_not_matter(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        for _ in range(400):
            await rig.open(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        assert (await rig.get("/healthz", key=None)).status == 200
        assert (await rig.ask()).status == 200

    play(scene, tmp_path)


def test_a_prompt_is_in_no_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(rig: Rig) -> None:
        secret = [{"role": "user", "content": "my secret"}]
        for fields in (
            {},
            {"stream": True},
            {"script": "answer=crash"},
            {"nonsense": 1},
            {"script": "cut_after=1", "stream": True},
        ):
            await rig.ask(messages=secret, **fields)
        await (await rig.open(b"my secret\r\n\r\n")).head()
        held: Conversation = await rig.say(messages=secret, script="hold=true")
        await rig.engine_reaches(active=1)
        await held.leave()
        await rig.engine_reaches(active=0)
        await asyncio.sleep(0)

    play(scene, tmp_path)
    printed = capfd.readouterr()
    for text in (printed.out, printed.err, caplog.text):
        assert "my secret" not in text
        assert KEY not in text
        assert "Traceback" not in text
