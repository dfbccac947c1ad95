"""What a benchmark of our own endpoint gives back to the plan: the decode speed of one stream."""

from __future__ import annotations

import statistics

import msgspec

from benchmarks.results import Result
from deploy import output, prepare
from deploy.errors import UserError
from deploy.measured import Entry, store


def one_stream(result: Result) -> float | None:
    """Tokens per second of one client's answers, over the replicates; None where no point is fit to be told."""
    cells = [cell for cell in result.replicates(1) if cell.usable and not cell.counts.failed]
    speeds = [
        1000 / cell.latencies_ms.tpot.p50
        for cell in cells
        if cell.latencies_ms.tpot and cell.window and not cell.window.short
    ]
    return statistics.median(speeds) if speeds else None


def keep(result: Result) -> bool:
    """Beside what was planned of the engine that was measured, if it is the one deployed here and was started here."""
    speed, own = one_stream(result), _own(result)
    if speed is None or own is None:
        return False
    server = result.server

    def measured(entry: Entry) -> bool:
        engine = (entry.engine, entry.engine_version)
        return (
            entry.correction is None
            and (entry.tree, entry.hardware) == own
            and engine == (server.engine, server.engine_version)
        )

    try:
        return store.amend(measured, lambda figures: msgspec.structs.replace(figures, tokens_per_s=speed))
    except (OSError, UserError) as error:
        output.warn(f"the speed is not kept for the next plan: {error}")
        return False


def _own(result: Result) -> tuple[str, str] | None:
    """Tree digest of the bytes and fingerprint of the box; None where another deployment has answered."""
    server = result.server
    if server.hardware is None or not server.lock:
        return None
    try:
        plan = prepare.read().plan
    except UserError:
        return None
    for model in plan.models:
        if server.model in (model.model, *model.aliases) and plan.lock.startswith(server.lock):
            return model.launch.variant.tree, plan.hardware
    return None
