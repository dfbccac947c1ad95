"""A plan in words, for people: the decision first, then its reasons, its memory, what it is not, and the command."""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from deploy import output, paths
from deploy.measured import Entry
from deploy.measured.comparison import Comparison, Row
from deploy.memory import Term, total
from deploy.outlook import Fetch, Outlook
from deploy.plan import ModelPlan, Rejection, Unplanned

COLUMNS = 100
"""Reasons are wrapped there, so that their labels stay a column. What may be copied into a shell never is."""
LABEL = 10
ROWS = 3
"""Of the catalogue rows that `auto` has passed over, the nearest."""
VERDICTS = {"fits": "fits", "limits": "fits with limits", "no": "does not fit"}


def show(found: Outlook) -> None:
    """All of it, on stdout."""
    if not found.fetch.fits:
        output.data(f"does not fit on the disk: {output.size(found.fetch.disk_bytes)} are needed where weights lie")
        output.data("")
    for model in found.models:
        _show_model(model)
        output.data("")
    for missing in found.unplanned:
        _show_unplanned(missing)
        output.data("")
    if found.beside:
        _say("beside", f"{', '.join(found.beside)}: all models of models.toml share the box", indent=0)
    if not found.locked and found.models:
        _say("unlocked", "sizes are what the source says; `ownweights lock` proves them", indent=0)
    if found.models:
        _show_fetch(found.fetch)


def _show_model(model: ModelPlan) -> None:
    output.data(f"{model.model}: {VERDICTS[model.verdict]}")
    for limit in model.limits:
        _say("limit", limit)
    at = f" at {model.revision}" if model.revision else ""
    _say("runs", f"{model.variant}{at} on {model.engine} {model.engine_version} ({_devices(model)})")
    _say("promise", _promise(model))
    if model.speed:
        speed = model.speed
        digits = 0 if speed.tokens_per_s >= 10 else 1
        words = f"{speed.tokens_per_s:.{digits}f} tokens/s per stream"
        _say("speed", f"{words} ({speed.provenance}: {speed.source})")
    _say("memory", _taken(model))
    _say("start", f"within {_time(model.start_timeout_s)}, or it has failed")
    for reason in model.because:
        _say("because", reason)
    _show_memory(model.memory)
    _show_rejected(model.rejected)
    for name, value in sorted(model.command.env.items()):
        _label("env", f"{name}={shlex.quote(value)}")
    _label("command", shlex.join(model.command.argv))


def _devices(model: ModelPlan) -> str:
    settings = model.settings
    if model.device == "cpu":
        return f"CPU, {_counted(settings.threads, 'thread')}"
    return f"GPU {', '.join(map(str, settings.devices))}"


def _promise(model: ModelPlan) -> str:
    """On GPUs requests share one cache, so that not all of them can be of the whole context at once."""
    settings = model.settings
    text = f"{_counted(settings.slots, 'request')} at once, up to {settings.context_tokens} tokens each"
    if model.kv_tokens is None:
        return text
    together = model.kv_tokens * settings.split.data
    return text if together >= settings.slots * settings.context_tokens else f"{text}, {together} together"


def _taken(model: ModelPlan) -> str:
    where = "of RAM" if model.device == "cpu" else "on each GPU"
    room = (
        "how much is free is not known" if model.room_bytes is None else f"{output.size(model.room_bytes)} can be taken"
    )
    return f"{output.size(total(model.memory))} {where}; {room}"


def _show_memory(terms: Sequence[Term]) -> None:
    """One line per term, and below them once where their formulas come from."""
    names = max((len(term.name) for term in terms), default=0)
    sure = max((len(f"{term.provenance}, {term.confidence}") for term in terms), default=0)
    for term in terms:
        trust = f"{term.provenance}, {term.confidence}"
        _say("needs", term.formula, column=f"{term.name:{names}}  {output.size(term.bytes):>8}  {trust:{sure}}  ")
    sources: dict[str, list[str]] = {}
    for term in terms:
        sources.setdefault(term.source, []).append(term.name)
    for source, of in sources.items():
        _say("source", source if len(sources) == 1 else f"{', '.join(of)}: {source}")


def _show_rejected(rejected: Iterable[Rejection]) -> None:
    """What was rejected for one reason stands in one line."""
    shown = [entry for entry in rejected if entry.reads and entry.device]
    rows = [entry for entry in rejected if entry.device is None]
    unread = sum(not entry.reads for entry in rejected)
    alike: dict[tuple[str, str], list[str]] = {}
    for entry in (*shown, *rows[:ROWS]):
        alike.setdefault((entry.reason, entry.change), []).append(entry.what)
    for (reason, change), what in alike.items():
        _say("not", f"{'; '.join(what)}: {reason} → {change}")
    if len(rows) > ROWS:
        _say("not", f"{len(rows) - ROWS} more catalogue rows that are larger: --json has them")
    if unread:
        _say("not", f"{_counted(unread, 'pair')} of an engine and a format that it does not read: --json has them")


def _show_unplanned(missing: Unplanned) -> None:
    output.data(f"{missing.model}: {VERDICTS['no']}")
    first, *rest = missing.reason.splitlines()
    _say("because", first)
    _show_rejected(missing.rejected)
    for line in rest:
        _say("not", line.strip())
    _label("hint", missing.hint)


def _show_fetch(fetch: Fetch) -> None:
    if fetch.bytes:
        time = (
            "at a rate that is not known yet"
            if fetch.seconds is None
            else f"about {_time(fetch.seconds)} at the rate of the last pull"
        )
        _say("fetch", f"{output.size(fetch.bytes)} of weights, {time}", indent=0)
        free = "unknown" if fetch.disk_free_bytes is None else output.size(fetch.disk_free_bytes)
        _say("disk", f"{output.size(fetch.disk_bytes)} needed, {free} free where weights lie", indent=0)
    else:
        _say("fetch", "no weights: they are here", indent=0)
    for name in fetch.environments:
        _say("install", f"{name}, in an environment of its own: its size is not known before", indent=0)
    if not fetch.fits:
        _label("hint", f"{paths.hub_cache()} is too small: export HF_HOME=/a/larger/disk", indent=0)


def show_history(rows: Sequence[Row]) -> None:
    """Measured values, each with how far the prediction was off."""
    if not rows:
        output.say("nothing was measured yet: `ownweights deploy` does it at every start")
    output.table(
        ("DATE", "MODEL", "VARIANT", "ENGINE", "SLOTS", "KV TOKENS", "PEAK", "LOAD", "TOKENS/S", "CORRECTED"),
        [
            (
                datetime.fromtimestamp(row.at, UTC).strftime("%Y-%m-%d %H:%M"),
                row.model,
                row.variant,
                row.engine,
                f"{row.slots} x {row.context_tokens}",
                _both(row.kv_tokens, str),
                _both(row.peak_bytes, output.size),
                None if row.load_s is None else _time(row.load_s),
                None if row.tokens_per_s is None else f"{row.tokens_per_s:.0f}",
                "no" if row.correction is None else f"to {row.corrected_tokens} tokens: {row.correction}",
            )
            for row in rows
        ],
    )


def show_forgotten(entries: Sequence[Entry]) -> None:
    """How many starts of what."""
    if not entries:
        output.say("nothing to forget: `ownweights plan --history` shows what was measured")
    counts = Counter((entry.model, entry.variant, entry.engine, entry.engine_version) for entry in entries)
    for (model, variant, engine, version), count in counts.items():
        output.data(f"forgotten: {_counted(count, 'start')} of {model} ({variant}) on {engine} {version}")


def _both(pair: Comparison, words: Callable[[int], str]) -> str | None:
    if pair.measured is None:
        return None
    off = "" if pair.error_percent is None else f" ({pair.error_percent:+.1f} %)"
    return f"{words(int(pair.measured))}{off}"


def _say(label: str, text: str, *, column: str = "", indent: int = 2) -> None:
    """Wrapped, with a hanging indent below the text."""
    first = f"{' ' * indent}{label:<{LABEL}}{column}"
    for line in textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [first.rstrip()]:
        output.data(line)


def _label(label: str, text: str, *, indent: int = 2) -> None:
    """In one line, however long: it may be copied."""
    output.data(f"{' ' * indent}{label:<{LABEL}}{text}")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _time(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
