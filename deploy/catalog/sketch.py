"""What a plan can weigh before anything is locked: a row's variants, without files, with a size from the best source.

A size is the pinned file's; else what third parties state of this precision; else parameters times the width of
one, with an allowance, because embeddings, norms and often attention stay wider than the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

from deploy.catalog.rows import BILLION, Gguf, Row, Weights
from deploy.lockfile import Licence, Origin, Place, Variant
from deploy.soundness import tree_digest

BITS = {
    **{"fp32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "mxfp8": 8, "int8": 8},
    **dict.fromkeys(("int4", "fp4", "nvfp4", "mxfp4"), 4),
}
"""Nominal width of a parameter."""
ALLOWANCE = {32: 1.0, 16: 1.02, 8: 1.05, 4: 1.2}
"""By width. Of the sizes that the catalogue has from others: 16 bits 1.00 to 1.03, 8 bits 1.04 to 1.14, 4 bits 1.19
to 1.33 (one 27B of 1.96, most of which was left at 16 bits) times the nominal one."""
GGUF_BITS = {
    **{"Q2_K": 3.16, "Q3_K_S": 3.64, "Q3_K_L": 4.30, "Q4_K_S": 4.67, "Q4_K_M": 4.89, "Q5_K_S": 5.57, "Q5_K_M": 5.70},
    **{"Q6_K": 6.56, "Q8_0": 8.50, "BF16": 16.0, "F16": 16.0},
}
"""Bits per weight of a whole file, embeddings included: llama.cpp's table for Llama-3.1-8B (ggml-org/llama.cpp@311c2c9
tools/quantize/README.md)."""
GGUF_ALLOWANCE = 1.05
"""The pinned files of 4B and more have 1.00 to 1.03 times that; smaller ones up to 1.6: their vocabulary is as long."""
LEAST_BYTES = 10**6
"""Of whatever is smaller, size or parameters are a mistake."""


def of(row: Row) -> tuple[Variant, ...]:
    """One per format and precision. One whose size nobody can tell, or that is too small for one, is left out."""
    return tuple(_variants(row))


def _variants(row: Row) -> Iterator[Variant]:
    for gguf in row.ggufs:
        if (size := _gguf_size(row, gguf) or 0) >= LEAST_BYTES:
            yield _variant(row, gguf, size)
    for weights in row.weights:
        if (size := _size(row, weights.precision) or 0) >= LEAST_BYTES:
            yield _variant(row, weights, size)


def _gguf_size(row: Row, gguf: Gguf) -> int | None:
    if gguf.pinned and gguf.bytes is not None:
        return gguf.bytes
    if gguf.size_gb is not None:
        return round(gguf.size_gb * BILLION)
    bits = GGUF_BITS.get(gguf.precision or "")
    if bits is None or row.total_params_b is None:
        return None
    return round(row.total_params_b * BILLION * bits / 8 * GGUF_ALLOWANCE)


def _size(row: Row, precision: str) -> int | None:
    stated = next((disk.bytes for disk in row.disk if disk.precision == precision), None)
    if stated is not None:
        return stated
    bits = BITS.get(precision)
    if bits is None or row.total_params_b is None:
        return None
    return round(row.total_params_b * BILLION * bits / 8 * ALLOWANCE[bits])


def _variant(row: Row, entry: Weights | Gguf, size: int) -> Variant:
    listed = entry if isinstance(entry, Gguf) else None
    # What was measured of the same bytes is found again.
    pin = listed.pin if listed else None
    commit = listed.revision if listed else row.commit_of(entry.hf_repo)
    return Variant(
        format="gguf" if listed else "safetensors",
        precision=str(entry.precision),
        size=size,
        tree=tree_digest((pin,)) if pin else "",
        origin=Origin(kind="huggingface", repo=entry.hf_repo, commit=commit),
        licence=Licence(id=row.licence.name) if row.licence.name else None,
        quantized_by=row.quantizer(entry.hf_repo),
        facts=row.facts(None if isinstance(entry, Gguf) else entry),
        files=(),
        places=listed.places if listed else (Place(kind="hub"),),
    )
