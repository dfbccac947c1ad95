"""Wheels that carry bytes, made by code, in a folder that pip takes for its whole index: no network."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.lockfile import Wheel

MEMBER = "carrier/part.bin"


class Wheelhouse:
    """A folder of wheels, and the environment variables that make it pip's only source."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}.items():
            monkeypatch.setenv(name, value)

    def add(self, package: str, content: bytes) -> Wheel:
        """A wheel with one member, and what a lock says about it."""
        info = f"{package.replace('-', '_')}-1.0.dist-info"
        path = self.path(package)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(MEMBER, content)
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return Wheel(package=package, version="1.0", member=MEMBER, size=len(content), sha256=digest)

    def split(self, content: bytes, count: int) -> tuple[Wheel, ...]:
        """The content over ``count`` wheels ``part-0``, ``part-1``, …"""
        step = -(-len(content) // count)
        return tuple(self.add(f"part-{i}", content[i * step : (i + 1) * step]) for i in range(count))

    def path(self, package: str) -> Path:
        return self.folder / f"{package.replace('-', '_')}-1.0-py3-none-any.whl"

    @contextmanager
    def over_http(self) -> Iterator[None]:
        """The same wheels from a web server, whose listing of the folder is all that pip needs."""
        with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(self.folder))) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                self._monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{server.server_port}/")
                yield
            finally:
                server.shutdown()
                thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass
