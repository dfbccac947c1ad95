"""Check of the clock: with a wrong one no certificate is valid, and every record and key expiry is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import deploy
from deploy import hub, paths
from deploy.checks import Context, Verdict, fail, ok, warn
from deploy.checks.hub import ask

SKEW_S = 300.0
"""Below it nothing here is troubled: the Date header has whole seconds, and answers take a few."""
CERTIFICATE_S = 86_400.0
"""A certificate can be a day old when it is first used: with a larger error TLS may fail."""
HINT = "sudo timedatectl set-ntp true  # or, without a time server: sudo date -u -s '2026-12-31 12:00'"


def clock(_: Context) -> Verdict:
    answer = ask("/api/models?limit=1", method="GET", token=False) if hub.reachable() else None
    hub_s = answer.date.timestamp() if answer and answer.date else None
    return judge(time.time(), hub_s, (Path(deploy.__file__), paths.key_file(), paths.deployment_file()))


def judge(now_s: float, hub_s: float | None, written: Iterable[Path]) -> Verdict:
    """Against the Hub's time where it told it, else against files of ours, which cannot be of the future."""
    seen = f"it says {datetime.fromtimestamp(now_s, UTC):%Y-%m-%d %H:%M} UTC"
    if hub_s is not None:
        error_s, witness = now_s - hub_s, f"{hub.address()} says"
    else:
        newest_s, path = max((path.stat().st_mtime, path) for path in written if path.exists())
        error_s, witness = min(0.0, now_s - newest_s), f"`{path}` was written at"
    if abs(error_s) <= SKEW_S:
        return ok(f"{seen}, as the Hub does" if hub_s is not None else f"{seen}, no Hub to compare it with")
    right = f"{datetime.fromtimestamp(now_s - error_s, UTC):%Y-%m-%d %H:%M}"
    verdict = fail if abs(error_s) > CERTIFICATE_S else warn
    return verdict(f"{seen}, {witness} {right}", HINT)
