"""What a model says of itself: facts from a Hugging Face config or a GGUF header. What it does not say stays None."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from deploy import output
from deploy.dimensions import Cache, Shape
from deploy.errors import LockError
from deploy.lockfile import Facts
from deploy.resolving import attention, gguf_attention, gguf_header, shape
from deploy.resolving.counts import whole

PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
# As file names write it: Q4_K_M, IQ2_XXS, BF16. The last one of a name counts.
LABEL = re.compile(
    r"(?<![A-Z0-9])((?:IQ|TQ|Q)\d(?:_(?:\d|K|XXS|XS|S|M|L|XL|NL))*|BF16|F16|F32|MXFP4)(?![A-Z0-9])", re.IGNORECASE
)
UNKNOWN = "unknown"
MOST_BITS = 32
"""Per weight: no type is wider."""
NAME = re.compile(r"[\w.-]{1,100}", re.ASCII)
"""Of an architecture or a quantization method: what is not one is not known."""
DECODED_BYTES = 4 << 20
"""Of a configuration: with a thousand tokens of its own it takes 200 kB. Decoded, JSON can take twenty times as much
memory as text. The vocabulary (tokenizer.json), which is longer, is not decoded."""
TEMPLATE = "chat_template.jinja"
PROCESSOR_TEMPLATE = "chat_template.json"
TOKENIZER = "tokenizer_config.json"


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """A variant's precision and its facts."""

    precision: str
    facts: Facts


def of_folder(paths: Collection[str], read: Callable[[str], bytes]) -> Described:
    """Of a Hugging Face folder: its paths, and a way to read them. Raises LockError where config.json is none."""
    config = json_object("config.json", read)
    # A multimodal model keeps the language model's dimensions one level down.
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    architecture = _name(first if isinstance(first, str) else None)
    return Described(
        precision=_precision(config, text),
        facts=_facts(
            architecture,
            whole(text, "max_position_embeddings"),
            attention.of_config(architecture, text),
            shape.of_config(text, config),
            template_source(paths, read),
        ),
    )


def of_gguf(header: gguf_header.Header, name: str) -> Described:
    """Of a GGUF file by its header and its name."""
    values = header.values
    architecture = _name(_text(values, "general.architecture"))
    return Described(
        precision=label(name) or _file_type(values),
        facts=_facts(
            architecture,
            whole(values, f"{architecture}.context_length"),
            gguf_attention.of_gguf(architecture, values),
            shape.of_gguf(architecture, header),
            gguf_template(header),
        ),
    )


def template_source(paths: Collection[str], read: Callable[[str], bytes]) -> str | None:
    """The chat template of a Hugging Face folder, wherever it lies, in the order in which engines look.

    None where there is none; undecodable bytes are replaced. Raises LockError for JSON that is none.
    """
    if TEMPLATE in paths:
        return read(TEMPLATE).decode(errors="replace")
    if PROCESSOR_TEMPLATE in paths:
        found = _text(json_object(PROCESSOR_TEMPLATE, read), "chat_template")
        if found is not None:
            return found
    return _named_template(json_object(TOKENIZER, read)) if TOKENIZER in paths else None


def gguf_template(header: gguf_header.Header) -> str | None:
    """The chat template in a GGUF's metadata."""
    return _text(header.values, "tokenizer.chat_template")


def label(name: str) -> str | None:
    """The quantization that a GGUF's file name states, in the usual spelling: Q4_K_M."""
    found = LABEL.findall(name)
    return str(found[-1]).upper() if found else None


def completed(found: Facts, known: Facts) -> Facts:
    """``found``, and of ``known`` what it does not say."""
    missing = {name: getattr(known, name) for name in Facts.__struct_fields__ if getattr(found, name) in (None, ())}
    return msgspec.structs.replace(found, **missing)


def json_object(path: str, read: Callable[[str], bytes]) -> dict[str, Any]:
    """Raises LockError where the file is something else, or nested or long beyond reason."""
    content = read(path)
    if len(content) > DECODED_BYTES:
        raise LockError(
            f"`{path}` has {output.size(len(content))}, no configuration needs {output.size(DECODED_BYTES)}"
        )
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise LockError(f"`{path}` is not a JSON object: {error}") from error


def _facts(
    architecture: str | None, context: int | None, cache: Cache | None, widths: Shape | None, template: str | None
) -> Facts:
    return Facts(
        architecture=architecture,
        context=context or None,
        cache=cache if cache and cache.is_likely else None,
        shape=widths,
        chat_template=None if template is None else hashlib.sha256(template.encode()).hexdigest(),
    )


def _precision(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    """The quantization where there is one, else the type that the weights are stored in."""
    quantized = config.get("quantization_config") or text.get("quantization_config")
    method = _name(_text(quantized, "quant_method")) if isinstance(quantized, dict) else None
    if isinstance(quantized, dict) and method:
        bits = _bits(quantized, "bits")
        return f"int{bits}" if bits else _compressed(quantized) or method
    stored = [_name(_text(table, key)) for table in (config, text) for key in ("dtype", "torch_dtype")]
    named = next((name for name in stored if name), UNKNOWN)
    return PRECISIONS.get(named, named)


def _bits(quantized: Mapping[str, Any], key: str) -> int | None:
    bits = whole(quantized, key)
    return bits if bits and bits <= MOST_BITS else None


def _compressed(quantized: Mapping[str, Any]) -> str | None:
    """compressed-tensors names no type of its own: it is the weights' in its groups, where they agree."""
    groups = quantized.get("config_groups")
    weights = (
        [group.get("weights") for group in groups.values() if isinstance(group, dict)]
        if isinstance(groups, dict)
        else []
    )
    kinds = {(_text(one, "type"), _bits(one, "num_bits")) for one in weights if isinstance(one, dict)}
    if len(kinds) != 1:
        return None
    kind, bits = kinds.pop()
    return f"{'fp' if kind == 'float' else kind}{bits}" if kind in ("int", "float") and bits else None


def _file_type(header: Mapping[str, Any]) -> str:
    from gguf import LlamaFileType

    number = whole(header, "general.file_type")
    name = next((kind.name for kind in LlamaFileType if kind.value == number), UNKNOWN)
    return str(name).removeprefix("MOSTLY_").removeprefix("ALL_")


def _named_template(tokenizer: Mapping[str, Any]) -> str | None:
    """Of several named templates the default one, as the engines choose too."""
    given = tokenizer.get("chat_template")
    if isinstance(given, list):
        default = [entry for entry in given if isinstance(entry, dict) and entry.get("name") == "default"]
        return _text(default[-1], "template") if default else None
    return given if isinstance(given, str) else None


def _name(value: str | None) -> str | None:
    return value if value and NAME.fullmatch(value) else None


def _text(table: Mapping[str, Any], key: str) -> str | None:
    value = table.get(key)
    return value if isinstance(value, str) else None
