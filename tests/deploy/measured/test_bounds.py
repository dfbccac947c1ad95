from __future__ import annotations

from typing import Any

import pytest

from deploy.engine import Figures, Split
from deploy.measured import bounds
from tests.deploy.measured.starts import start

OUTSIDE: tuple[dict[str, Any], ...] = (
    {"peak_bytes": -1},
    {"peak_bytes": (1 << 62) + 1},
    {"kv_tokens": 10**4000},
    {"kv_bytes": -1},
    {"weights_bytes": -1},
    {"load_s": -1e300},
    {"load_s": 1e308},
    {"load_s": float("nan")},
    {"tokens_per_s": 0.0},
    {"tokens_per_s": 1e308},
    {"named": 0},
    {"predicted": Figures(peak_bytes=-(10**30))},
    {"context_tokens": 10**30},
    {"slots": 0},
    {"threads": 0},
    {"kv_cache_bytes": -1},
    {"gpu_memory_share": 1.1},
    {"batched_tokens": 0},
    {"devices": (-1,)},
    {"split": Split(tensor=0)},
    {"split": Split(because="\x1b[31m")},
    {"free_bytes": -1},
    {"engine": "a\x1b[2J"},
    {"correction": "one\ntwo"},
    {"model": "x" * 501},
)


@pytest.mark.parametrize("fields", OUTSIDE, ids=range(len(OUTSIDE)))
def test_what_no_box_can_give_is_not_sound(fields: dict[str, Any]) -> None:
    assert not bounds.sound(start(**fields))


def test_what_a_box_gives_is_sound_at_its_limits() -> None:
    least = start(
        peak_bytes=0, kv_tokens=0, load_s=0.0, tokens_per_s=1e-6, named=1, correction="zu groß: 日本", slots=1
    )
    most = start(peak_bytes=1 << 62, load_s=1e6, tokens_per_s=1e6, gpu_memory_share=1.0, devices=(0, 7), free_bytes=0)
    assert bounds.sound(least)
    assert bounds.sound(most)
    assert (bounds.told(least), bounds.told(most)) == (least, most)
