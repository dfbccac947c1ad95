"""What a model says of itself: facts from a Hugging Face config or a GGUF header. What it does not say stays None."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, BinaryIO

import msgspec

from deploy import gguf_header
from deploy.errors import LockError
from deploy.lockfile import Facts

KV_ELEMENT_BYTES = 2
"""The caches are 16 bits wide unless an engine is told otherwise."""
# Only classes known to keep one plain key and value per layer and head: elsewhere the formula would be a guess.
PLAIN_ATTENTION = frozenset(
    [
        *("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"),
        *("Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM", "Glm4MoeForCausalLM", "MiniMaxM2ForCausalLM"),
        *("llama", "qwen2", "qwen3", "qwen2moe", "qwen3moe", "glm4moe", "minimax-m2"),
    ]
)
PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
# As file names write it: Q4_K_M, IQ2_XXS, BF16. The last one of a name counts.
LABEL = re.compile(
    r"(?<![A-Z0-9])((?:IQ|TQ|Q)\d(?:_(?:\d|K|XXS|XS|S|M|L|XL|NL))*|BF16|F16|F32|MXFP4)(?![A-Z0-9])", re.IGNORECASE
)
UNKNOWN = "unknown"


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """A variant's precision and its facts."""

    precision: str
    facts: Facts


def of_folder(paths: Collection[str], read: Callable[[str], bytes], known: Collection[str]) -> Described:
    """Of a Hugging Face folder: its paths, and a way to read them.

    ``known`` are the architectures that need none of the repository's own code. Raises LockError where code
    would have to be run, or where config.json is none.
    """
    config = _object("config.json", read)
    tokenizer = _object("tokenizer_config.json", read) if "tokenizer_config.json" in paths else {}
    template = read("chat_template.jinja") if "chat_template.jinja" in paths else _template(tokenizer)
    # A multimodal model keeps the language model's dimensions one level down.
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else None
    _refuse_code(config if architecture not in known else {}, tokenizer)
    cache = _kv_bytes(architecture, text)
    facts = Facts(
        architecture=architecture,
        context=_int(text, "max_position_embeddings"),
        attention="gqa" if cache else None,
        kv_bytes_per_token=cache,
        chat_template=_sha256(template),
    )
    return Described(precision=_precision(config, text), facts=facts)


def of_gguf(stream: BinaryIO, name: str) -> Described:
    """Of a GGUF file by its header. Raises gguf_header.Truncated, or LockError for what is no GGUF."""
    try:
        header = gguf_header.read(stream)
    except gguf_header.Truncated:
        raise
    except ValueError as error:
        raise LockError(str(error), where=name, hint="the file is damaged or of another format") from error
    architecture = _text(header, "general.architecture")
    cache = _gguf_kv_bytes(header, architecture)
    facts = Facts(
        architecture=architecture,
        context=_int(header, f"{architecture}.context_length"),
        attention="gqa" if cache else None,
        kv_bytes_per_token=cache,
        chat_template=_sha256(_text(header, "tokenizer.chat_template")),
    )
    return Described(precision=label(name) or _file_type(header), facts=facts)


def label(name: str) -> str | None:
    """The quantization that a GGUF's file name states, in the usual spelling: Q4_K_M."""
    found = LABEL.findall(name)
    return str(found[-1]).upper() if found else None


def completed(found: Facts, known: Facts) -> Facts:
    """``found``, and of ``known`` what it does not say."""
    missing = {name: getattr(known, name) for name in Facts.__struct_fields__ if getattr(found, name) in (None, ())}
    return msgspec.structs.replace(found, **missing)


def _kv_bytes(architecture: str | None, text: Mapping[str, Any]) -> int | None:
    """Layers x KV heads x (key + value) x 2 bytes, for plain attention with every dimension known."""
    windowed = text.get("sliding_window") is not None and text.get("use_sliding_window") is not False
    kinds = text.get("layer_types") or []
    mixed = not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds)
    if architecture not in PLAIN_ATTENTION or windowed or mixed:
        return None
    layers, queries, hidden = (_int(text, key) for key in ("num_hidden_layers", "num_attention_heads", "hidden_size"))
    heads = _int(text, "num_key_value_heads") or queries
    width = _int(text, "head_dim") or (hidden // queries if hidden and queries else None)
    return layers * heads * 2 * width * KV_ELEMENT_BYTES if layers and heads and width else None


def _gguf_kv_bytes(header: Mapping[str, Any], architecture: str | None) -> int | None:
    """The same by GGUF's keys, where the KV heads may be given per layer."""
    attention = f"{architecture}.attention"
    layers, queries, hidden = (
        _int(header, f"{architecture}.{key}") for key in ("block_count", "attention.head_count", "embedding_length")
    )
    if architecture not in PLAIN_ATTENTION or f"{attention}.sliding_window" in header:
        return None
    if not layers or not queries or not hidden:
        return None
    given = header.get(f"{attention}.head_count_kv")
    if isinstance(given, list):
        heads = sum(count for count in given if isinstance(count, int))
    else:
        heads = layers * (_int(header, f"{attention}.head_count_kv") or queries)
    widths = [_int(header, f"{attention}.{part}_length") or hidden // queries for part in ("key", "value")]
    return heads * sum(widths) * KV_ELEMENT_BYTES


def _precision(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    """The quantization where there is one, else the type that the weights are stored in."""
    quantized = config.get("quantization_config") or text.get("quantization_config")
    if isinstance(quantized, dict) and _text(quantized, "quant_method"):
        bits = _int(quantized, "bits")
        return f"int{bits}" if bits else str(quantized["quant_method"])
    stored = [_text(table, key) for table in (config, text) for key in ("dtype", "torch_dtype")]
    named = next((name for name in stored if name), UNKNOWN)
    return PRECISIONS.get(named, named)


def _file_type(header: Mapping[str, Any]) -> str:
    from gguf import LlamaFileType

    number = _int(header, "general.file_type")
    name = next((kind.name for kind in LlamaFileType if kind.value == number), UNKNOWN)
    return str(name).removeprefix("MOSTLY_").removeprefix("ALL_")


def _refuse_code(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> None:
    """``auto_map`` names classes in the repository's own Python files."""
    wanted = sorted({str(name) for table in (config, tokenizer) for name in _names(table.get("auto_map"))})
    if wanted:
        raise LockError(
            f"the repository brings code of its own to be run ({', '.join(wanted)})",
            hint="remote code is not supported yet: choose a model that needs none, see `ownweights models`",
        )


def _names(auto_map: object) -> list[object]:
    """Its keys; old tokenizers write a list."""
    if isinstance(auto_map, dict | list):
        return list(auto_map)
    return [auto_map] if auto_map else []


def _template(tokenizer: Mapping[str, Any]) -> str | None:
    """Of several named templates the default one, as the engines choose too."""
    given = tokenizer.get("chat_template")
    if isinstance(given, list):
        named = {entry.get("name"): entry for entry in given if isinstance(entry, dict)}
        return _text(named.get("default", {}), "template")
    return given if isinstance(given, str) else None


def _object(path: str, read: Callable[[str], bytes]) -> dict[str, Any]:
    try:
        return msgspec.json.decode(read(path), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LockError(f"`{path}` is not a JSON object: {error}") from error


def _sha256(content: str | bytes | None) -> str | None:
    if content is None:
        return None
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def _text(table: Mapping[str, Any], key: str) -> str | None:
    value = table.get(key)
    return value if isinstance(value, str) else None


def _int(table: Mapping[str, Any], key: str) -> int | None:
    value = table.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
