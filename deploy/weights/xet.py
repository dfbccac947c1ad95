"""A Hub's content store: files that lie there in chunks, put together by hf_xet while they are read.

hf_xet does not check what it hands on, swallows some failures, and cannot be interrupted while it waits: the hash,
the length, the time limit and the end are ours. It keeps nothing on disk but its log, and less than half a GB in
memory, whatever the size of the file. Sources: hf_xet 1.8; huggingface/xet-core, spec/auth.md.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import msgspec

from deploy import transport
from deploy.errors import PlaceError
from deploy.hub.client import Question
from deploy.hub.errors import shown
from deploy.lockfile import File, Variant
from deploy.stop import Stop
from deploy.weights import cache

if TYPE_CHECKING:
    from hf_xet import XetConfig, XetDownloadStreamGroup, XetSession  # type: ignore[import-untyped]

CHUNK_BYTES = 1 << 20
STALL_S = 300.0
"""Without a byte. hf_xet hands on nothing before it has up to 64 MB of it, which may take long on a slow line."""
GRANT_S, GRANT_BYTES = 30.0, 1 << 16
"""What the answer of the Hub may cost that names the store."""
PLAIN = "HF_HUB_DISABLE_XET=1 ownweights pull  # by plain HTTP, for files of up to 50 GB"
THREAD = "xet"
BUFFER = "128mb"
SETTINGS = {
    "telemetry.enabled": False,
    "client.connect_timeout": "10s",
    "client.read_timeout": "30s",
    "client.retry_base_delay": "2s",
    "reconstruction.download_buffer_size": BUFFER,
    "reconstruction.download_buffer_perfile_size": BUFFER,
    "reconstruction.download_buffer_limit": BUFFER,
}
"""Of hf_xet, where its own variable (HF_XET_CLIENT_READ_TIMEOUT, …) does not say otherwise."""


class Grant(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the Hub gives for reading: the store's address, and a token of its own that soon expires."""

    cas_url: str
    access_token: Annotated[str, msgspec.Meta(pattern=rf"\A{transport.TOKEN.pattern}\Z")]
    exp: int
    """Unix seconds."""


@dataclass(frozen=True)
class Xet:
    """A place: the content store of a Hub, at the pinned commit. ``stall_s`` without a byte is a failure."""

    endpoint: str
    stop: Stop = field(default_factory=Stop)
    stall_s: float = STALL_S

    @property
    def name(self) -> str:
        return f"xet {transport.host(self.endpoint)}"

    def open(self, variant: Variant, file: File, offset: int) -> Generator[bytes, None, None]:
        """The file's bytes from ``offset``, in chunks of at most 1 MiB. Raises PlaceError: what, and why not; Stopped.

        Unproved, even where hf_xet is content.
        """
        from hf_xet import XetFileInfo, XetSession

        _refuse_without_xet(file)
        position = offset
        if position >= file.size:
            return
        try:
            session = XetSession(_config())
            stream = self._group(session, variant).download_stream(XetFileInfo(file.xet, file.size), start=offset)
            for block in self._blocks(session, stream):
                position += len(block)
                for at in range(0, len(block), CHUNK_BYTES):
                    yield block[at : at + CHUNK_BYTES]
        except (OSError, RuntimeError, ValueError) as error:
            self.stop.check()
            # Everything that hf_xet raises, its own two included. Not as a cause: it knows the tokens.
            raise PlaceError(f"hf_xet failed: {shown(str(error))}", hint=PLAIN) from None
        self.stop.check()
        if position < file.size:
            # Some of its failures, an unreachable store among them, it keeps for itself.
            raise PlaceError(f"hf_xet ended at byte {position} of {file.size} without a reason", hint=PLAIN)

    def _group(self, session: XetSession, variant: Variant) -> XetDownloadStreamGroup:
        transport.origin(self.endpoint)
        home, repo, commit = transport.bare(self.endpoint), variant.origin.repo or "", cache.commit(variant)
        url = f"{home}/api/models/{quote(repo)}/xet-read-token/{commit}"
        question = Question(repo, commit, home=self.endpoint, where=home, limit_s=GRANT_S, limit_bytes=GRANT_BYTES)
        grant = _grant(question, url)
        return session.new_download_stream_group(
            endpoint=transport.bare(grant.cas_url),
            token=grant.access_token,
            token_expiry_unix_secs=grant.exp,
            token_refresh_url=url,
            token_refresh_headers=transport.headers(self.endpoint, token=True),
        )

    def _blocks(self, session: XetSession, stream: Any) -> Generator[bytes, None, None]:
        """What the stream yields, of any length. In a thread of its own, which can be given up: hf_xet's cannot."""
        thread = ThreadPoolExecutor(1, THREAD)
        with ExitStack() as ending:
            ending.callback(thread.shutdown, wait=False)
            # Nothing less ends a read that waits for the store.
            ending.callback(session.sigint_abort)
            ending.enter_context(self.stop.waking(session.sigint_abort))
            block = thread.submit(next, stream, None)
            try:
                while (found := block.result(self.stall_s)) is not None:
                    block = thread.submit(next, stream, None)
                    yield found
            except TimeoutError:
                raise PlaceError(f"sent nothing for {self.stall_s:.0f} s") from None


def _grant(question: Question, url: str) -> Grant:
    ((answer, _),) = question.in_time([partial(question.page, url)])
    try:
        grant = msgspec.json.decode(answer, type=Grant)
        # hf_xet would also take `local:///a/path`, and make folders there.
        transport.origin(grant.cas_url)
    except (msgspec.MsgspecError, UnicodeDecodeError, PlaceError):
        raise PlaceError("the Hub names no content store", where=question.where, hint="check HF_ENDPOINT") from None
    return grant


def _refuse_without_xet(file: File) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_DISABLE_XET:
        raise PlaceError("HF_HUB_DISABLE_XET is set", hint="unset HF_HUB_DISABLE_XET")
    if file.xet is None:
        raise PlaceError(
            f"the lock names no content-store hash for `{file.path}`", hint="ownweights lock --upgrade NAME"
        )


def _config() -> XetConfig:
    from hf_xet import XetConfig

    ours = {key: value for key, value in SETTINGS.items() if _variable(key) not in os.environ}
    return XetConfig().with_config(ours)


def _variable(key: str) -> str:
    return f"HF_XET_{key.replace('.', '_').upper()}"
