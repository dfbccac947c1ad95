"""What a test serves in place of a catalogue row's repository: a tiny model that says it is as wide as that one."""

from __future__ import annotations

import json

from deploy import catalog
from deploy.catalog import Row


def find(repo: str) -> Row | None:
    """The row that names this repository of safetensors."""
    return next((row for row in catalog.rows() if repo in (one.hf_repo for one in row.weights)), None)


def config(row: Row, content: bytes) -> bytes:
    """A config.json with the dimensions that the catalogue knows of a row with plain attention; all else stays."""
    cache, shape = row.facts().cache, row.facts().shape
    stated = {
        "architectures": list(row.architectures[:1]),
        "num_hidden_layers": cache and cache.layers,
        "hidden_size": shape and shape.hidden,
        "num_attention_heads": shape and shape.heads,
        "num_key_value_heads": cache and cache.kv_heads,
        "head_dim": cache and cache.key_width,
    }
    return json.dumps(json.loads(content) | {key: value for key, value in stated.items() if value}).encode()
