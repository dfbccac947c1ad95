"""A local Xet content store: what the real hf_xet uploaded to disk, served over HTTP as the Hub's store serves it.

    with hubserver.hub([REPO]) as server, hubserver.hub([]) as other:
        store = xetstore.Store(tmp_path, other)
        file_hash = store.add(WEIGHTS)
        store.announce(server)

Its routes are put into running test Hubs, so that their request log and their faults hold for it too.
Source: huggingface/xet-core, spec/api.md (reconstruction) and spec/xorb.md (eight bytes of header before each chunk).
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import hf_xet
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from tests.hubserver import Hub

HEADER_BYTES = 8
TERM_CHUNKS = 16
"""So many chunks are one request: about a MiB."""
READ_TOKEN = "xet-read-token-of-the-store"
SIGNATURE = "signed-by-the-store"
RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(frozen=True)
class Xorb:
    """One file's chunks as hf_xet packed them."""

    path: Path

    @property
    def hash(self) -> str:
        return self.path.name.removeprefix("default.")

    @cached_property
    def ends(self) -> list[tuple[int, int]]:
        """Where each chunk ends: in the xorb, and in the file."""
        content, packed, plain, found = self.path.read_bytes(), 0, 0, list[tuple[int, int]]()
        while content[packed : packed + 7] != b"XETBLOB":
            header = content[packed : packed + HEADER_BYTES]
            packed += HEADER_BYTES + int.from_bytes(header[1:4], "little")
            plain += int.from_bytes(header[5:8], "little")
            found.append((packed, plain))
        return found

    def flip(self) -> None:
        """Invert a byte of the last chunk's content."""
        at = self.ends[-1][0] - 1
        content = bytearray(self.path.read_bytes())
        content[at] ^= 0xFF
        self.path.chmod(0o600)
        self.path.write_bytes(content)


class Store:
    """Files by their Xet hash, and the routes under which ``server`` serves them."""

    def __init__(self, folder: Path, server: Hub) -> None:
        self.files: dict[str, Xorb] = {}
        self.url = server.url
        self.lifetime_s = 3600
        """Of the read tokens that it gives out."""
        self._folder = folder
        server.app.router.routes += [
            Route("/v1/reconstructions/{file}", self.reconstruction),
            Route("/xorbs/{xorb}/{first}", self.xorb),
        ]

    def add(self, content: bytes) -> str:
        """Upload it with hf_xet; its hash. Noise, and small enough for one xorb: then its chunks lie there in order."""
        folder = self._folder / f"file-{len(self.files)}"
        with hf_xet.XetSession().new_upload_commit(endpoint=f"local://{folder}") as commit:
            upload = commit.start_upload_bytes(content)
        (path,) = (found for found in folder.rglob("default.*") if found.suffix != ".tagset")
        found: str = upload.result().xet_info.hash
        self.files[found] = Xorb(path)
        return found

    def announce(self, hub: Hub) -> None:
        """Let a Hub give out read tokens for this store."""
        hub.app.router.routes.append(Route("/api/models/{owner}/{name}/xet-read-token/{revision}", self.read_token))

    async def read_token(self, request: Request) -> Response:
        expires = int(time.time()) + self.lifetime_s
        headers = {
            "X-Xet-Cas-Url": self.url,
            "X-Xet-Access-Token": READ_TOKEN,
            "X-Xet-Token-Expiration": str(expires),
        }
        return JSONResponse({"casUrl": self.url, "accessToken": READ_TOKEN, "exp": expires}, headers=headers)

    async def reconstruction(self, request: Request) -> Response:
        """Which chunks of which xorb hold a range of the file."""
        xorb, asked = self.files.get(request.path_params["file"]), RANGE.fullmatch(request.headers.get("range", ""))
        if xorb is None:
            return Response(status_code=404)
        size = xorb.ends[-1][1]
        first, last = (int(asked[1]), min(int(asked[2]), size - 1)) if asked else (0, size - 1)
        if first >= size:
            return Response(status_code=416)
        starts = [0, *(plain for _, plain in xorb.ends)]
        begin = max(number for number, start in enumerate(starts) if start <= first)
        end = min(number for number, start in enumerate(starts) if start > last)
        return Response(
            json.dumps(self._recipe(xorb, begin, end, first - starts[begin])), media_type="application/json"
        )

    async def xorb(self, request: Request) -> Response:
        return FileResponse(next(x.path for x in self.files.values() if x.hash == request.path_params["xorb"]))

    def _recipe(self, xorb: Xorb, begin: int, end: int, skip: int) -> dict[str, Any]:
        ends, terms, fetches = [(0, 0), *xorb.ends], [], []
        for first in range(begin, end, TERM_CHUNKS):
            last = min(first + TERM_CHUNKS, end)
            chunks = {"start": first, "end": last}
            terms.append({"hash": xorb.hash, "unpacked_length": ends[last][1] - ends[first][1], "range": chunks})
            url = f"{self.url}/xorbs/{xorb.hash}/{first}?X-Signature={SIGNATURE}"
            fetches.append(
                {"range": chunks, "url": url, "url_range": {"start": ends[first][0], "end": ends[last][0] - 1}}
            )
        return {"offset_into_first_range": skip, "terms": terms, "fetch_info": {xorb.hash: fetches}}
