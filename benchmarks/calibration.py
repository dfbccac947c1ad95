"""The harness measured by itself: the same client and the same loop against a mock of known TTFT and TPOT.

What is left over is the error of harness, loopback and the mock's timers together, printed with every result.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import msgspec

from benchmarks import mock
from benchmarks.client import Endpoint, connect
from benchmarks.intervals import percentile
from benchmarks.load import ClosedLoop, Shape
from benchmarks.results import Calibration
from benchmarks.timing import Record
from deploy.errors import OwnweightsError

TOKENS = 20
START_S = 30


async def calibrate(concurrency: int) -> Calibration:
    """At the highest concurrency that is to be measured. Raises OwnweightsError if the harness miscounts."""
    async with _mock_process() as base_url, connect(Endpoint(base_url=base_url)) as client:
        body = msgspec.json.encode({"model": mock.MODEL, "max_tokens": TOKENS, "stream": True})
        shape = Shape(concurrency=concurrency, warmups=concurrency, requests=max(10, 2 * concurrency), window_s=0)
        loop = ClosedLoop(lambda _, t_sched_ns: client.chat(body, t_sched_ns=t_sched_ns), shape, ramp_s=0.2)
        await loop.run()
    return _errors(loop.records[shape.warmups :], concurrency)


def _errors(records: list[Record], concurrency: int) -> Calibration:
    ttfts = sorted(record.ttft_ms - mock.TTFT_MS for record in records if record.ttft_ms is not None)
    tpots = sorted(record.tpot_ms - mock.TPOT_MS for record in records if record.tpot_ms is not None)
    whole = [record for record in records if record.ok and len(record.chunks_ns) == TOKENS]
    if not len(whole) == len(ttfts) == len(tpots) == len(records):
        bad = next(record for record in records if record not in whole)
        raise OwnweightsError(f"the harness misread its own mock: {bad.outcome}", where="calibration")
    return Calibration(
        concurrency=concurrency,
        requests=len(records),
        true_ttft_ms=mock.TTFT_MS,
        true_tpot_ms=mock.TPOT_MS,
        ttft_error_p50_ms=percentile(ttfts, 0.5),
        ttft_error_max_ms=ttfts[-1],
        tpot_error_p50_ms=percentile(tpots, 0.5),
    )


@contextlib.asynccontextmanager
async def _mock_process() -> AsyncIterator[str]:
    # -P: a folder named benchmarks where the user happens to stand must not be taken for ours.
    # A session of its own: Ctrl-C is for the harness, which then ends it.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "benchmarks.mock"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        base_url = await asyncio.wait_for(process.stdout.readline(), START_S)
        if not base_url:
            raise OwnweightsError("the mock server did not start", where="calibration")
        yield base_url.decode().strip()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
