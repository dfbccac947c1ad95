"""Before the load: who answers, what it caches of every prompt, and whether it can be made to answer at full length."""

from __future__ import annotations

import random

import aiohttp
import msgspec

from benchmarks.client import Client
from benchmarks.results import Probe, Server
from benchmarks.timing import NS_PER_MS, Outcome, Record
from benchmarks.workload import Mode, Workload, vocabulary
from deploy.errors import EngineError, UserError
from deploy.hardware import Hardware

LENGTH_TOKENS = 32
SHORT_QUESTION = "Answer with the one word yes."


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of one entry of /v1/models; other servers leave most of it out."""

    id: str
    aliases: tuple[str, ...] = ()
    revision: str | None = None
    engine: str | None = None
    lock: str | None = None
    max_model_len: int | None = None
    slots: int | None = None


class _Models(msgspec.Struct):
    data: tuple[Entry, ...]


def body(model: str, prompt: str, max_tokens: int, *, ignore_eos: bool) -> bytes:
    """A streamed chat request. Temperature is sent because servers differ in their default."""
    asked: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return msgspec.json.encode(asked | {"ignore_eos": True} if ignore_eos else asked)


async def choose_model(client: Client, wanted: str | None, url: str) -> Entry:
    """The model to measure. Raises UserError where it is not clear which, EngineError if none answers."""
    entries = await _models(client, url)
    names = ", ".join(entry.id for entry in entries) or "no model"
    if wanted is None:
        if len(entries) == 1:
            return entries[0]
        raise UserError(f"{url} serves {names}: which one?", hint="--model NAME")
    for entry in entries:
        if wanted in (entry.id, *entry.aliases):
            return msgspec.structs.replace(entry, id=wanted)
    raise UserError(f"{url} does not serve `{wanted}`", hint=f"--model with one of: {names}")


def describe(entry: Entry, receipts: dict[str, str], url: str, hardware: Hardware | None) -> Server:
    """From the receipts of an answer first, then from the model's entry. What neither says stays None."""
    engine, _, version = (receipts.get("engine") or entry.engine or "").partition(" ")
    return Server(
        url=url,
        model=entry.id,
        revision=receipts.get("revision") or entry.revision,
        engine=engine or None,
        engine_version=version or None,
        lock=receipts.get("lock") or entry.lock,
        context_tokens=entry.max_model_len,
        slots=entry.slots,
        hardware=hardware,
    )


async def probe(client: Client, model: str, workload: Workload, run_id: str) -> Probe:
    """Raises UserError or EngineError with the server's own words if it does not answer."""
    shared = await _template_tokens_cached(client, model, run_id)
    forced = await client.chat(body(model, SHORT_QUESTION, LENGTH_TOKENS, ignore_eos=True))
    ignores = forced.ok and forced.finish_reason == "length" and _tokens(forced) == LENGTH_TOKENS
    timed = await _answered(client, body(model, workload.prompt(run_id, "probe", 0), 8, ignore_eos=ignores))
    return Probe(
        template_tokens_cached=shared,
        ignores_eos=ignores,
        request_ms=(timed.ttft_ms or 0.0) + (timed.tpot_ms or 0.0) * workload.output_tokens,
    )


def mode_of(found: Probe) -> Mode:
    """Capacity where the server can be held to the full length, and only there."""
    return "capacity" if found.ignores_eos else "behaviour"


async def _template_tokens_cached(client: Client, model: str, run_id: str) -> int | None:
    """Three one-word messages that differ from their first letter on: what the last two have from the cache is what
    every request shares. The smaller counts, because a word may have been asked before.
    """
    shuffled = random.Random(run_id).sample(vocabulary(), len(vocabulary()))
    by_letter = {word[0]: word for word in shuffled}
    cached = []
    for word in list(by_letter.values())[:3]:
        record = await _answered(client, body(model, word.capitalize(), 8, ignore_eos=False))
        cached.append(record.usage.cached_tokens if record.usage else None)
    known = [count for count in cached[1:] if count is not None]
    return min(known, default=None)


async def _answered(client: Client, asked: bytes) -> Record:
    record = await client.chat(asked)
    if record.ok or record.outcome is Outcome.EMPTY:
        return record
    raise _refused(record)


def _refused(record: Record) -> UserError | EngineError:
    detail = record.detail or str(record.outcome)
    waited_s = (record.t_done_ns - record.t_send_ns) / NS_PER_MS / 1000
    if record.outcome is Outcome.HTTP and detail.startswith("HTTP 4"):
        hint = "--key-file FILE" if detail.startswith(("HTTP 401", "HTTP 403")) else None
        return UserError(f"the endpoint refuses the request: {detail}", hint=hint)
    return EngineError(f"the endpoint does not answer: {detail} (after {waited_s:.1f} s)", hint="ownweights logs")


async def _models(client: Client, url: str) -> tuple[Entry, ...]:
    try:
        status, answer = await client.get("/models")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UserError(f"nothing answers: {error}", where=url, hint="make deploy, or check --url") from error
    if status in (401, 403):
        raise UserError(f"the endpoint refuses the key (HTTP {status})", where=url, hint="--key-file FILE")
    if status != 200:
        raise EngineError(f"GET /models answers HTTP {status}", where=url, hint="is the URL right?")
    try:
        return msgspec.json.decode(answer, type=_Models).data
    except msgspec.DecodeError as error:
        raise UserError(
            f"GET /models does not answer like OpenAI's: {error}", where=url, hint="is the URL right?"
        ) from error


def _tokens(record: Record) -> int | None:
    return record.usage.completion_tokens if record.usage else None
