"""A box of its own for a test: a project folder, our places, and the command line in a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil

from tests import tiny

DEADLINE_S = 120


@dataclass(frozen=True)
class Box:
    """``folder`` holds everything. The model is the tiny checkpoint, on llama.cpp."""

    folder: Path
    port: int

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def state(self) -> Path:
        return self.folder / "home" / "state"

    @property
    def weights(self) -> Path:
        return self.folder / "tiny.gguf"

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "OWNWEIGHTS_HOME": str(self.folder / "home")}

    def start(self, *command: str) -> subprocess.Popen[str]:
        call = [sys.executable, "-m", "deploy.cli", *command]
        return subprocess.Popen(
            call, cwd=self.project, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*command)
        out, err = process.communicate(timeout=DEADLINE_S)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def ok(self, *command: str) -> str:
        done = self.run(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def service(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.state / "service.json").read_bytes())
        return record

    def engine_pid(self) -> int:
        pid: int = json.loads((self.state / "engines" / "chat.json").read_bytes())["process"]["pid"]
        return pid

    def answer(self) -> httpx2.Response:
        key = (self.state / "operator.key").read_text().strip()
        body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        return httpx2.post(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {key}"},
            timeout=DEADLINE_S,
        )

    def processes(self) -> list[psutil.Process]:
        """Every process that works in or for this box, ourselves left out."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.folder) in " ".join(process.cmdline()) or process.cwd().startswith(str(self.folder)):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def leaves_nothing(self) -> None:
        """No process, no open port, no socket: within a moment, because the kernel takes one too."""
        deadline = time.monotonic() + 5
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not self.processes()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", self.port)) != 0
        assert not (self.state / "service.json").exists()


@contextmanager
def box(folder: Path) -> Iterator[Box]:
    made = Box(folder=folder, port=_free_port())
    made.project.mkdir()
    tiny.gguf(made.weights)
    (made.project / "models.toml").write_text(
        f'[[model]]\nname = "chat"\nsource = "file:{made.weights}"\ncontext = 1024\nslots = 2\n'
        f'[server]\nport = {made.port}\n[engines]\ngpu = "none"\n'
    )
    try:
        yield made
    finally:
        made.run("down")
        for process in made.processes():
            process.kill()


def said(process: subprocess.Popen[str], text: str) -> None:
    """Reads what the process tells until it says ``text``."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return
    raise AssertionError(f"never said {text!r}:\n{''.join(lines)}")


def kill(process: subprocess.Popen[str], number: signal.Signals) -> int:
    process.send_signal(number)
    process.communicate(timeout=DEADLINE_S)
    return process.returncode


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
