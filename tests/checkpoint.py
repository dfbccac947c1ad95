"""What the two kinds of test model share: a Qwen tokenizer's files, and safetensors written by hand.

Source of the layout: the safetensors README (8 bytes little-endian header length, JSON header, raw tensors);
the files of any Qwen repository on the Hub.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Qwen's own split of text into words, before the merges.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint. ``rows`` yields it in pieces, so that a large one is never whole in memory."""

    shape: tuple[int, ...]
    rows: Callable[[], Iterator[Floats]]


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE: token texts in id order, then the added ones, which follow them."""

    tokens: list[str]
    merges: list[str]
    """Two token texts with a blank between."""
    added: dict[str, bool]
    """Text → whether it is a control token, which never shows in an answer."""
    template: str
    """Jinja source of the chat template."""

    def id(self, added: str) -> int:
        return len(self.tokens) + list(self.added).index(added)


def bfloat16(values: Floats) -> NDArray[np.uint16]:
    """Round to nearest even; the upper half of each float32."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Byte-identical for equal tensors: sorted by name, compact header, padded to 8 bytes with blanks."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in sorted(tensors.items()):
        start, end = end, end + 2 * int(np.prod(tensor.shape))
        header[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in sorted(tensors.items()):
            for piece in tensor.rows():
                file.write(bfloat16(piece).tobytes())


def write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_tokenizer(folder: Path, vocabulary: Vocabulary, *, window: int) -> None:
    """``tokenizer.json`` for the tokenizers library and ``tokenizer_config.json`` with the chat template."""
    added = [
        {
            "id": vocabulary.id(text),
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": special,
        }
        for text, special in vocabulary.added.items()
    ]
    write_json(folder / "tokenizer.json", _tokenizer(vocabulary, added))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added
            },
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "clean_up_tokenization_spaces": False,
            "model_max_length": window,
            "chat_template": vocabulary.template,
        },
    )


def _tokenizer(vocabulary: Vocabulary, added: list[dict[str, Any]]) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(vocabulary.tokens)},
            "merges": vocabulary.merges,
        },
    }


def describe(folder: Path, *, vocabulary: Vocabulary, **facts: Any) -> None:
    """``config.json`` and ``generation_config.json``; ``facts`` are the architecture's own keys."""
    ends = [vocabulary.id("<|im_end|>"), vocabulary.id("<|endoftext|>")]
    # Without a transformers_version, transformers warns that the tokenizer's pattern is wrong, which it is not.
    common = {"torch_dtype": "bfloat16", "transformers_version": "4.57.0", "hidden_act": "silu", "use_cache": True}
    write_json(folder / "config.json", {**facts, **common, "eos_token_id": ends[0]})
    write_json(folder / "generation_config.json", {"eos_token_id": ends, "pad_token_id": ends[1]})
