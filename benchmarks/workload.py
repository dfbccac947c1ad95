"""What is asked: deterministic prompts of plain words, fresh for every run, no two of which begin alike.

A prompt sent twice is answered out of the server's prefix cache and measures that cache, so each is a
function of (seed, run id, cell, index).
"""

from __future__ import annotations

import hashlib
import random
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

Mode = Literal["capacity", "behaviour"]
"""capacity: the end of the answer is ignored, every answer has the full length. behaviour: the model stops itself."""

WORDS_PER_SENTENCE = 12
TASK = "Tell a long story in which these words come up in this order."


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """The definition of a load: its digest is equal exactly when two runs asked for the same kind of work."""

    name: str = "fresh words"
    seed: int
    prompt_tokens: int
    """Nominal: about one word each. What was really sent is what the server's ``usage`` says."""
    output_tokens: int
    """The most a request may generate, and in capacity mode exactly what it does."""
    mode: Mode

    def prompt(self, run_id: str, cell: str, index: int) -> str:
        """The index-th prompt of a cell of a run."""
        words = vocabulary()
        # random() is the one method whose sequence for a seed Python promises to keep.
        draw = random.Random(f"{self.seed}/{run_id}/{cell}/{index}").random
        count = max(2, self.prompt_tokens - len(TASK.split()))
        body = [*_opening(self.seed, run_id, cell, index), *(words[int(draw() * len(words))] for _ in range(count - 2))]
        sentences = [body[at : at + WORDS_PER_SENTENCE] for at in range(0, count, WORDS_PER_SENTENCE)]
        return " ".join(f"{' '.join(sentence).capitalize()}." for sentence in sentences) + f" {TASK}"

    @property
    def sha256(self) -> str:
        """Over the definition, the task and the vocabulary. The run id is no part of it."""
        definition = [msgspec.to_builtins(self), WORDS_PER_SENTENCE, TASK, vocabulary()]
        return hashlib.sha256(msgspec.json.encode(definition, order="deterministic")).hexdigest()


@cache
def vocabulary() -> tuple[str, ...]:
    """Common English words, each used once in the list."""
    return tuple(resources.files("benchmarks").joinpath("words.txt").read_text(encoding="ascii").split())


def _opening(seed: int, run_id: str, cell: str, index: int) -> tuple[str, str]:
    """Two words counted through, not drawn: within a cell the first differs for as long as there are words,
    and the pair never repeats before all pairs are used (over 600 000). Between cells the count starts elsewhere.
    """
    words = vocabulary()
    start = int.from_bytes(hashlib.sha256(f"{seed}/{run_id}/{cell}".encode()).digest()[:8]) % len(words)
    lap, place = divmod(start + index, len(words))
    return words[place], words[(place * 7 + lap) % len(words)]
