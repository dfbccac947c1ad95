"""Check of the clock: with a wrong one no certificate is valid, and every record and key expiry is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import deploy
from deploy import hub, paths
from deploy.checks import Context, Verdict, fail, ok, together, warn
from deploy.checks.hub import ask

SKEW_S = 300.0
"""Below it nothing here is troubled: the Date header has whole seconds, and answers take a few."""
CERTIFICATE_S = 86_400.0
"""A certificate can be a day old when it is first used: with a larger error TLS may fail."""
RELEASED = datetime(2026, 11, 1, tzinfo=UTC)
"""This code was written after it: no right clock says less."""
OUTLIVED = datetime(2046, 11, 1, tzinfo=UTC)
"""Nobody runs this release any more."""
SET = "sudo timedatectl set-ntp true  # or, without a time server: sudo date -u -s"


def clock(_: Context) -> Verdict:
    answer = ask("/api/models?limit=1", method="GET", token=False) if hub.reachable() else None
    hub_s = answer.date.timestamp() if answer and answer.date else None
    return judge(time.time(), hub_s, (Path(deploy.__file__), paths.key_file(), paths.deployment_file()))


def judge(now_s: float, hub_s: float | None, written: Iterable[Path]) -> Verdict:
    """Against the Hub's time where it told one that can be, else against files of ours: never of the future."""
    if hub_s is None:
        return _against_files(now_s, written)
    if RELEASED.timestamp() <= hub_s <= OUTLIVED.timestamp():
        return _against_hub(now_s, hub_s)
    wrong = warn(
        f"{hub.address()} says {_minute(hub_s)}, which cannot be: its clock is wrong",
        "export HF_ENDPOINT=https://a.mirror  # or have that Hub's clock set",
    )
    return together((wrong, _against_files(now_s, written)), wrong)


def _against_hub(now_s: float, hub_s: float) -> Verdict:
    if abs(now_s - hub_s) <= SKEW_S:
        return ok(f"{_own(now_s)}, as the Hub does")
    seen = f"{_own(now_s)}, {hub.address()} says {_minute(hub_s)}"
    return _by_size(now_s - hub_s, seen, f"{SET} '{datetime.fromtimestamp(hub_s, UTC):%Y-%m-%d %H:%M:%S}'")


def _against_files(now_s: float, written: Iterable[Path]) -> Verdict:
    newest_s, path = max((path.stat().st_mtime, path) for path in written if path.exists())
    if now_s - newest_s >= -SKEW_S:
        return ok(f"{_own(now_s)}, no Hub to compare it with")
    seen = f"{_own(now_s)}, `{path}` was written at {_minute(newest_s)}"
    return _by_size(now_s - newest_s, seen, f"{SET} and the time of a watch")


def _by_size(error_s: float, seen: str, hint: str) -> Verdict:
    return (fail if abs(error_s) > CERTIFICATE_S else warn)(seen, hint)


def _own(now_s: float) -> str:
    return f"it says {_minute(now_s)} UTC"


def _minute(time_s: float) -> str:
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M}"
