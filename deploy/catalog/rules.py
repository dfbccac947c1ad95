"""What must hold of a catalogue row beyond its form: pure, for our own rows in the tests and for every user's file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from deploy import vocabulary
from deploy.catalog import recipe
from deploy.catalog.recipe import Generation
from deploy.catalog.rows import UNITS, Gguf, Row
from deploy.catalog.widths import MOST_PER_TOKEN, Kv
from deploy.lines import Steps
from deploy.soundness import LICENCE, PACKAGE, RELEASE, REPO, SHA1, SHA256, Flaw, is_safe

ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
RESERVED = ("auto",)
"""What a `source` means by itself."""
MOST_BILLIONS, MOST_GB, MOST_TOKENS = 1_000_000, 1_000_000, 1 << 40
"""A hundred times what any model has."""
LEAST_BILLIONS, LEAST_GB = 1e-3, 1e-3
"""A hundredth of what any model has: nothing that is computed from it becomes 0."""
NEEDED = {
    "gqa": ("kv_heads", "head_dim"),
    "hybrid-gqa": ("kv_heads", "head_dim", "kv_layers"),
    "mla": ("kv_lora_rank", "qk_rope_head_dim"),
}
"""Without these a cache of that kind has no size."""


def flaws(row: Row, today: date) -> Iterator[Flaw]:
    """Rules that the row breaks, each with its place in the row's tables."""
    if not ID.fullmatch(row.id) or row.id in RESERVED:
        yield Flaw(("id",), "must be small letters, digits, dots and dashes, and not `auto`")
    if not row.source or not all((*row.source, row.licence.source)):
        yield Flaw(("source",), "must name where the facts are from")
    if row.as_of > today:
        yield Flaw(("as_of",), f"{row.as_of} is in the future")
    if not LICENCE.fullmatch(row.licence.spdx):
        yield Flaw(("licence", "spdx"), "is no SPDX id, nor a `LicenseRef-…`")
    yield from _numbers(row)
    yield from _addresses(row)
    yield from _recipe(row)
    if row.kv:
        yield from (Flaw(("kv", *at), rule) for at, rule in _kv(row.kv))
    for number, gguf in enumerate(row.gguf):
        yield from (Flaw(("gguf", number, key), rule) for key, rule in _file(gguf))


def _numbers(row: Row) -> Iterator[Flaw]:
    """TOML has infinite ones, and some that are none."""
    stated: list[tuple[Steps, float | None, float, int]] = [
        (("total_params_b",), row.total_params_b, LEAST_BILLIONS, MOST_BILLIONS),
        (("active_params_b",), row.active_params_b, LEAST_BILLIONS, MOST_BILLIONS),
        (("context_length",), row.context_length, 1, MOST_TOKENS),
        *((("gguf", number, "size_gb"), gguf.size_gb, LEAST_GB, MOST_GB) for number, gguf in enumerate(row.gguf)),
        *((("gguf", number, "bytes"), gguf.bytes, 1, MOST_GB * 10**9) for number, gguf in enumerate(row.gguf)),
        *(
            (("disk", number, unit), getattr(disk, unit), LEAST_GB, MOST_GB)
            for number, disk in enumerate(row.disk)
            for unit in UNITS
        ),
    ]
    for at, value, least, most in stated:
        if value is not None and not least <= value <= most:
            yield Flaw(at, f"is {value}, must be between {least} and {most}")


def _addresses(row: Row) -> Iterator[Flaw]:
    """Whatever becomes a question to a Hub."""
    if not REPO.fullmatch(row.hf_repo):
        yield Flaw(("hf_repo",), "is not of the form `org/name`")
    repositories = {
        "variant": [one.hf_repo for one in row.variant],
        "gguf": [one.hf_repo for one in row.gguf],
        "revision": [one.hf_repo for one in row.revision],
    }
    for table, named in repositories.items():
        for number, repo in enumerate(named):
            if not REPO.fullmatch(repo):
                yield Flaw((table, number, "hf_repo"), "is not of the form `org/name`")
    for number, revision in enumerate(row.revision):
        if not SHA1.fullmatch(revision.commit):
            yield Flaw(("revision", number, "commit"), "is not a commit: 40 hex digits")


def _kv(kv: Kv) -> Iterator[tuple[Steps, str]]:
    for key in ("kv_layers", "index_layers"):
        if (getattr(kv, key) or 0) > kv.layers:
            yield (key,), f"is {getattr(kv, key)}, of {kv.layers} layers"
    if kv.kind != "mla":
        yield from (((key,), "belongs to kind mla") for key in ("index_head_dim", "index_layers") if getattr(kv, key))
    elif kv.index_layers and not kv.index_head_dim:
        yield ("index_layers",), "needs index_head_dim"
    missing = [key for key in NEEDED.get(kv.kind, ()) if getattr(kv, key) is None]
    if missing:
        yield (), f"of kind {kv.kind} needs {' and '.join(missing)}"
    elif kv.cache:
        yield from _bytes(kv, kv.cache.bytes_per_token)


def _bytes(kv: Kv, computed: int) -> Iterator[tuple[Steps, str]]:
    if computed > MOST_PER_TOKEN:
        yield (), f"would keep {computed} bytes per token, must be at most {MOST_PER_TOKEN}"
    elif kv.bytes_per_token_bf16 not in (None, computed):
        yield ("bytes_per_token_bf16",), f"is {kv.bytes_per_token_bf16}, the dimensions give {computed}"


def _recipe(row: Row) -> Iterator[Flaw]:
    for at, args in _arguments(row):
        for flag in vocabulary.strange_flags(recipe.unplanned(args)):
            yield Flaw(at, f"has `{flag}`, which no recipe tells vLLM")
    for at, override in _overrides(row):
        for name in vocabulary.strange_variables(override.env):
            yield Flaw((*at, "env", name), f"is `{override.env[name]}`, which no recipe tells vLLM")


def _arguments(row: Row) -> Iterator[tuple[Steps, tuple[str, ...]]]:
    if row.vllm:
        for key in ("base_args", "tool_args", "reasoning_args", "text_only_args"):
            yield ("vllm", key), getattr(row.vllm, key)
        for number, drafted in enumerate(row.vllm.speculative):
            yield ("vllm", "speculative", number, "args"), drafted.args
    for number, weights in enumerate(row.variant):
        yield ("variant", number, "extra_args"), weights.extra_args
    for at, override in _overrides(row):
        yield (*at, "args"), override.args


def _overrides(row: Row) -> Iterator[tuple[Steps, Generation]]:
    for number, entry in enumerate(row.vllm.override if row.vllm else ()):
        yield ("vllm", "override", number), entry
    for number, weights in enumerate(row.variant):
        for position, entry in enumerate(weights.override):
            yield ("variant", number, "override", position), entry


def _file(gguf: Gguf) -> Iterator[tuple[str, str]]:
    if gguf.file is not None and not (is_safe(gguf.file) and gguf.file.endswith(".gguf")):
        yield "file", "is not the path of a .gguf file in its repository"
    if gguf.file is not None and gguf.precision is None:
        yield "precision", "is missing: what the file's name states"
    if gguf.sha256 is not None and not SHA256.fullmatch(gguf.sha256):
        yield "sha256", "is not 64 hex digits"
    if gguf.revision is not None and not SHA1.fullmatch(gguf.revision):
        yield "revision", "is not a commit: 40 hex digits"
    yield from _wheels(gguf)


def _wheels(gguf: Gguf) -> Iterator[tuple[str, str]]:
    if not gguf.index:
        return
    if not gguf.pinned:
        yield "index", "needs the file's revision, bytes and sha256 beside it"
    if sum(part.bytes for part in gguf.index) != gguf.bytes:
        yield "index", f"adds up to {sum(part.bytes for part in gguf.index)} bytes, the file has {gguf.bytes}"
    for part in gguf.index:
        named = PACKAGE.fullmatch(part.package) and RELEASE.fullmatch(part.version)
        if not named or not SHA256.fullmatch(part.wheel_sha256) or not is_safe(part.member):
            yield "index", f"{part.package!r} {part.version!r} is no wheel with a member and a sha256"
