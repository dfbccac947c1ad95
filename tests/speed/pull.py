"""Our pull, hashing included, beside the stock client, which hashes nothing: same server, same bytes, in turn.

    python -m tests.speed.pull [--rounds 5] [--folder /where/to/write]

By hand, on a quiet machine: figures of two cores that others use say little. The server hands files to the kernel
(sendfile), so that it is not what is measured. Every pull is a process of its own, and what it wrote is flushed and
deleted before the next one; our own flush before a file counts is inside our time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests import locked
from tests.hubrepo import Repo

MIB = 1 << 20
SHAPES = {"16 x 64 MiB": (16, 64 * MIB), "1 x 1 GiB": (1, 1024 * MIB)}


class Server(ThreadingHTTPServer):
    """As much of a Hub as both clients ask for, over one repository."""

    daemon_threads = True

    def __init__(self, repo: Repo) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repo = repo


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        repo, path = self.server.repo, self.path.partition("?")[0]
        _, _, file = path.partition(f"/resolve/{repo.commit}/")
        if file in repo.blobs:
            self._send_file(file)
        elif path.startswith(f"/api/models/{repo.id}/tree/"):
            self._send_json([repo.entry(name) for name in repo.blobs])
        elif path.startswith(f"/api/models/{repo.id}"):
            self._send_json(repo.info())
        else:
            self.send_error(404)

    def _send_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self._head({"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _send_file(self, name: str) -> None:
        repo = self.server.repo
        blob, etag = repo.blobs[name], repo.etag(name)
        self._head(
            {
                "ETag": f'"{etag}"',
                "X-Linked-Etag": f'"{etag}"',
                "X-Linked-Size": str(blob.size),
                "X-Repo-Commit": repo.commit,
                "Content-Length": str(blob.size),
            }
        )
        if self.command == "GET":
            assert isinstance(blob.content, Path)
            with blob.content.open("rb") as content:
                self.connection.sendfile(content)

    def _head(self, headers: dict[str, str]) -> None:
        self.send_response(200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(repo: Repo) -> Iterator[str]:
    """The address of a server in a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        server = Server(repo)
        os.write(writer, str(server.server_port).encode())
        os.close(writer)
        server.serve_forever()
    os.close(writer)
    try:
        with open(reader) as said:  # noqa: PTH123  # a pipe has no path
            yield f"http://127.0.0.1:{said.read()}"
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def ours(lock: Path) -> Callable[[], object]:
    from deploy import lockfile
    from deploy.weights import puller

    (model,) = lockfile.read(lock).models
    return lambda: puller.pull(model.variants)


def stock(lock: Path) -> Callable[[], object]:
    from huggingface_hub import snapshot_download

    from deploy import lockfile

    origin = lockfile.read(lock).models[0].variants[0].origin
    return lambda: snapshot_download(origin.repo, revision=origin.commit)


def child(client: str, lock: Path) -> None:
    """Pull once in this process and print what it took; its imports and its start are not counted."""
    import httpx2  # noqa: F401  # both need it
    import urllib3  # noqa: F401

    pull = {"ours": ours, "stock": stock}[client](lock)
    base = peak_mib()
    began, before = time.monotonic(), os.times()
    pull()
    after, seconds = os.times(), time.monotonic() - began
    cpu = after.user + after.system - before.user - before.system
    print(json.dumps({"seconds": seconds, "cpu": cpu, "rss": peak_mib() - base}))


def peak_mib() -> float:
    """Of this program: getrusage would count what the process was before it became this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def once(client: str, url: str, lock: Path, folder: Path) -> dict[str, float]:
    home = folder / "home"
    environment = os.environ | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "OWNWEIGHTS_HOME": str(home / "ours"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN_PATH": os.devnull,
    }
    os.sync()
    command = [sys.executable, "-m", "tests.speed.pull", "--child", client, "--lock", str(lock)]
    said = subprocess.run(command, env=environment, check=True, capture_output=True)
    shutil.rmtree(home)
    measured: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
    return measured


def compare(shape: str, rounds: int, folder: Path) -> None:
    count, size = SHAPES[shape]
    files: dict[str, bytes | Path] = {}
    for number in range(count):
        path = folder / f"model-{number:05}.safetensors"
        with path.open("wb") as content:
            for _ in range(size // MIB):
                content.write(os.urandom(MIB))
        files[path.name] = path
    repo = Repo("org/speed", files=files)
    lock = locked.lock_file(folder, locked.of(repo))
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "stock": []}
    with serving(repo) as url:
        for number in range(rounds + 1):
            for client in ("ours", "stock") if number % 2 else ("stock", "ours"):
                measured = once(client, url, lock, folder)
                if number:  # the first round warms the page cache
                    runs[client].append(measured)
    ratios = [other["seconds"] / own["seconds"] for own, other in zip(runs["ours"], runs["stock"], strict=True)]
    gib = count * size / (1 << 30)
    print(f"{shape}: {statistics.median(ratios):.2f} x stock (rounds from {min(ratios):.2f} to {max(ratios):.2f})")
    for client, measured in runs.items():
        rate = gib * 1024 / statistics.median(run["seconds"] for run in measured)
        cpu = statistics.median(run["cpu"] for run in measured) / gib
        rss = max(run["rss"] for run in measured)
        print(f"  {client:5}  {rate:5.0f} MiB/s  {cpu:.2f} CPU s/GiB  peak RSS +{rss:.0f} MiB")
    for path in folder.iterdir():
        path.unlink() if path.is_file() else shutil.rmtree(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--child", choices=("ours", "stock"), help=argparse.SUPPRESS)
    parser.add_argument("--lock", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child, asked.lock)
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for shape in SHAPES:
            compare(shape, asked.rounds, Path(folder))


if __name__ == "__main__":
    main()
