"""What of a model changed since it was locked: its files by what they are for, and what follows from them.

owner      another repository under the same name
code       Python files that come with the weights
licence    its id, its gate, its text
weights    files, tensors, sizes
tokenizer  by file and key
template   a diff of the chat template's source, wherever it lies
config     key by key, and what of it decides memory and context
other      whatever else is locked
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import msgspec

from deploy import output
from deploy.changes import differences
from deploy.changes.contents import Contents
from deploy.changes.differences import Incomparable, Value
from deploy.errors import PlaceError
from deploy.lockfile import File, Model, Variant
from deploy.resolving import selection
from deploy.soundness import SHA1

Group = Literal["owner", "code", "licence", "weights", "tokenizer", "template", "config", "other"]
GROUPS: tuple[Group, ...] = get_args(Group)
EXPLAINED = 40
"""So many changed files are opened, the loud groups first: of the others only the digests are compared."""
WEIGHTS = re.compile(r".*\.(safetensors|gguf|bin|index\.json)")
TOKENIZER = re.compile(
    r"(tokenizer.*|special_tokens_map|added_tokens|vocab|tekken)\.json|(vocab|merges)\.txt|.*\.(model|tiktoken)"
)
TEMPLATE = re.compile(r"chat_template\..*|.*\.jinja")
CONFIG = re.compile(r".*config\.json")
WITH_TEMPLATE = "tokenizer_config.json"

ATTENTION = "which tokens are kept in the KV cache"
CACHE = "KV cache: memory per token of context"
SIZE = "size of the weights"
SAMPLING = "sampling, where a request says nothing"
END = "where an answer ends"
MEANINGS = {
    **dict.fromkeys(("max_position_embeddings", "model_max_length", "seq_length"), "context"),
    **dict.fromkeys(("rope_scaling", "rope_theta", "rope_parameters"), "how far the context reaches"),
    **dict.fromkeys(("sliding_window", "use_sliding_window", "layer_types", "index_topk"), ATTENTION),
    **dict.fromkeys(("num_hidden_layers", "num_key_value_heads", "head_dim", "kv_lora_rank"), CACHE),
    **dict.fromkeys(("hidden_size", "intermediate_size", "moe_intermediate_size", "vocab_size"), SIZE),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts"), SIZE),
    "num_experts_per_tok": "work per token",
    **dict.fromkeys(("dtype", "torch_dtype", "quantization_config"), "precision"),
    **dict.fromkeys(("architectures", "model_type"), "which engines can run it"),
    "auto_map": "code of the repository's own",
    **dict.fromkeys(("eos_token_id", "eos_token", "stop_strings"), END),
    **dict.fromkeys(("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "do_sample"), SAMPLING),
}
"""What a key of a configuration decides."""
FACTS = {
    "architecture": "which engines can run it",
    "parameters": "size of the weights",
    "active_parameters": "work per token",
    "context": "tokens, at most",
    "cache": CACHE,
    "shape": "how it can be split over GPUs, and the buffers of a step",
    "vllm_args": "how vLLM is started",
    "overrides": "how vLLM is started on one GPU generation",
}
ASKED = ("repo_id", "gated")
"""What only the Hub says: a catalogue row that was locked without it says nothing to compare with."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is another one now, or, without a ``path``, what follows from all files together."""

    group: Group
    path: str | None = None
    before: File | None = None
    after: File | None = None
    values: tuple[Value, ...] = ()
    more: int = 0
    """So many values differ beside those that are listed."""
    diff: tuple[str, ...] = ()
    """Lines of a unified diff, the first of them."""
    note: str | None = None
    """Why nothing more can be shown."""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One variant of a model, then and now. ``before`` and ``after`` are commits."""

    model: str
    variant: str
    source: str
    before: str | None = None
    after: str | None = None
    changes: tuple[Change, ...] = ()
    """The loud groups first. Empty: the same bytes under the same terms, whatever else the repository got."""
    fixed: bool = False
    """It names a commit itself, so nothing upstream can change it."""


def is_fixed(variant: Variant) -> bool:
    """Whether what was asked for is a commit: then there is no newer one."""
    origin = variant.origin
    return origin.kind == "huggingface" and (origin.requested is None or bool(SHA1.fullmatch(origin.requested)))


def of_model(before: Model, after: Model) -> tuple[Drift, ...]:
    """Variant by variant; where its key is gone, another precision in its format succeeds it, of its repository only.

    What merely happens to be left in that format comes from elsewhere, and would look like another owner.
    """
    same, known = {other.key: other for other in after.variants}, {variant.key for variant in before.variants}
    found, left = [], [other for other in after.variants if other.key not in known]
    for variant in before.variants:
        successor = same.get(variant.key) or next((other for other in left if _succeeds(other, variant)), None)
        left = [other for other in left if other is not successor]
        found.append(_pair(before.name, variant, successor) if successor else _gone(before.name, variant))
    return (*found, *(_new(before.name, variant) for variant in left))


def _succeeds(other: Variant, variant: Variant) -> bool:
    now, then = other.origin, variant.origin
    renamed = then.repo_id is not None and now.repo_id == then.repo_id
    return other.format == variant.format and now.kind == then.kind and (now.repo == then.repo or renamed)


def compare(before: Contents, after: Contents) -> tuple[Change, ...]:
    """What differs between two variants, the loud groups first; empty: the same bytes under the same terms."""
    old, new = before.variant, after.variant
    template = _template(before, after)
    files = sorted(_files(old, new), key=_rank)
    opened = [_opened(change, before, after, templated=bool(template)) for change in files[:EXPLAINED]]
    derived = [*_owner(old, new), *_terms(old, new), *_tensors(old, new), *template, *_facts(old, new)]
    return tuple(sorted([*derived, *opened, *files[EXPLAINED:]], key=_rank))


def _pair(model: str, old: Variant, new: Variant) -> Drift:
    return Drift(
        model=model,
        variant=old.key,
        source=_source(old),
        before=old.origin.commit,
        after=new.origin.commit,
        changes=compare(Contents(old), Contents(new)),
        fixed=is_fixed(old),
    )


def _gone(model: str, old: Variant) -> Drift:
    change = Change(group="weights", values=(Value(key="variant", before=old.key),))
    return Drift(model=model, variant=old.key, source=_source(old), before=old.origin.commit, changes=(change,))


def _new(model: str, new: Variant) -> Drift:
    change = Change(group="weights", values=(Value(key="variant", after=new.key),))
    return Drift(model=model, variant=new.key, source=_source(new), after=new.origin.commit, changes=(change,))


def _source(variant: Variant) -> str:
    origin = variant.origin
    if origin.kind == "path":
        return next((str(place.path) for place in variant.places if place.kind == "file"), "file")
    return f"{origin.repo}@{origin.requested or origin.commit}"


def _rank(change: Change) -> tuple[int, str]:
    return GROUPS.index(change.group), change.path or ""


def _group(path: str, legal: bool) -> Group:
    if path.endswith(".py"):
        return "code"
    if legal:
        return "licence"
    rules: tuple[tuple[re.Pattern[str], Group], ...] = (
        (WEIGHTS, "weights"),
        (TEMPLATE, "template"),
        (TOKENIZER, "tokenizer"),
        (CONFIG, "config"),
    )
    return next((group for rule, group in rules if rule.fullmatch(path)), "other")


def _files(old: Variant, new: Variant) -> Iterator[Change]:
    before, after = ({file.path: file for file in (*one.code, *one.files)} for one in (old, new))
    legal = frozenset(selection.legal([*before, *after]))
    for path in before.keys() | after.keys():
        was, now = before.get(path), after.get(path)
        if was is None or now is None or was.sha256 != now.sha256:
            yield Change(group=_group(path, path in legal), path=path, before=was, after=now)


def _opened(change: Change, before: Contents, after: Contents, *, templated: bool) -> Change:
    """With what differs inside of it. Code that is new is shown whole; of weights there is nothing to read."""
    path, was, now = str(change.path), change.before, change.after
    unread = change.group == "weights" or (change.group == "template" and templated)
    if unread or now is None or (was is None and change.group != "code"):
        return change
    document = path.endswith(".json")
    try:
        for file in (was, now):
            differences.refuse_large(file.size if file else 0, document=document)
        old, new = before.read(was) if was else b"", after.read(now)
        if not document:
            return msgspec.structs.replace(change, diff=differences.of_texts(old, new))
        without = ("chat_template",) if templated and path == WITH_TEMPLATE else ()
        return _keyed(change, differences.of_json(old, new, without=without), only="chat_template" if without else None)
    except (PlaceError, Incomparable) as error:
        return msgspec.structs.replace(change, note=str(error))


def _keyed(change: Change, found: differences.Values, *, only: str | None) -> Change:
    if not found.shown:
        return msgspec.structs.replace(change, note=f"only `{only}`" if only else "the same values, written otherwise")
    known = CONFIG.fullmatch(str(change.path))
    values = [msgspec.structs.replace(value, meaning=_meaning(value.key) if known else None) for value in found.shown]
    return msgspec.structs.replace(change, values=tuple(values), more=found.more)


def _meaning(key: str) -> str | None:
    """By the outermost part that is known: what lies in `rope_scaling` is about that."""
    parts = (part.partition("[")[0] for part in key.split("."))
    return next((MEANINGS[part] for part in parts if part in MEANINGS), None)


def _template(before: Contents, after: Contents) -> tuple[Change, ...]:
    old, new = before.variant.facts.chat_template, after.variant.facts.chat_template
    if old == new:
        return ()
    change = Change(group="template", values=(Value(key="sha256", before=old, after=new),))
    try:
        texts = [(contents.template() or "").encode() for contents in (before, after)]
        return (msgspec.structs.replace(change, diff=differences.of_texts(*texts)),)
    except (PlaceError, Incomparable) as error:
        return (msgspec.structs.replace(change, note=str(error)),)


def _owner(old: Variant, new: Variant) -> Iterator[Change]:
    words = {"kind": None, "repo": None, "repo_id": "another repository under this name: its owner may be another one"}
    yield from _derived("owner", words, old.origin, new.origin)


def _terms(old: Variant, new: Variant) -> Iterator[Change]:
    words = {"id": "the terms of use", "file": "where their text is", "gated": "the Hub asks for acceptance first"}
    yield from _derived("licence", words, old.licence, new.licence)


def _facts(old: Variant, new: Variant) -> Iterator[Change]:
    yield from _derived("config", {"precision": "how the weights are stored"}, old, new)
    yield from _derived("config", FACTS, old.facts, new.facts)


def _derived(group: Group, words: Mapping[str, str | None], old: object, new: object) -> Iterator[Change]:
    """The fields of two nouns that differ, in the words given; one that is not there is unknown."""
    before, after = ({name: getattr(one, name, None) for name in words} for one in (old, new))
    unasked = {name for name in ASKED if before.get(name) is None or after.get(name) is None}
    known = (
        {key: said for name, value in one.items() if name not in unasked for key, said in _known(name, value)}
        for one in (before, after)
    )
    values = tuple(
        msgspec.structs.replace(value, meaning=words[value.key.partition(".")[0]])
        for value in differences.of_values(*known)
    )
    if values:
        yield Change(group=group, values=values)


def _known(name: str, value: object) -> Iterator[tuple[str, object]]:
    """The fields of a noun in a noun one by one, by dotted names, so that a change names the one that changed."""
    if isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from _known(f"{name}.{field}", getattr(value, field))
    elif value is not None:
        yield name, value


def _tensors(old: Variant, new: Variant) -> Iterator[Change]:
    """How many there are of which type, and all bytes."""
    counted = old.tensors and new.tensors
    tables = [msgspec.to_builtins(one.tensors) for one in (old, new)]
    values = list(differences.of_values(*tables)) if counted else []
    sizes = [sum(file.size for file in one.files if WEIGHTS.fullmatch(file.path)) for one in (old, new)]
    if sizes[0] != sizes[1]:
        grown = f"{'+' if sizes[1] > sizes[0] else '-'}{output.size(abs(sizes[1] - sizes[0]))}"
        values.append(Value(key="bytes", before=str(sizes[0]), after=str(sizes[1]), meaning=f"{grown} of weights"))
    if values:
        yield Change(group="weights", values=tuple(values))
