"""What a published recipe may tell vLLM about its model: flags and variables, for every GPU and for one generation.

A lock can be edited: code, addresses and sizes are not among it (``deploy.vocabulary``).
"""

from __future__ import annotations

from deploy import vocabulary
from deploy.lockfile import Facts

AUTO_TOOLS, EXPERTS = "--enable-auto-tool-choice", "--enable-expert-parallel"


def unasked(facts: Facts) -> str | None:
    """A flag or a variable that no recipe has any business with."""
    found = [*vocabulary.strange_flags(facts.vllm_args)]
    for override in facts.overrides:
        found += (*vocabulary.strange_flags(override.args), *vocabulary.strange_variables(override.env))
    return next(iter(found), None)


def flags(facts: Facts, generation: str | None) -> tuple[str, ...]:
    """The model's own, then its generation's, of which vLLM takes the last; without those of the plan.

    A tool parser does nothing by itself.
    """
    given = list(facts.vllm_args)
    for override in facts.overrides:
        given += override.args if override.generation == generation else ()
    kept = tuple(word for word in given if word != EXPERTS)
    return (*kept, AUTO_TOOLS) if "--tool-call-parser" in kept and AUTO_TOOLS not in kept else kept


def variables(facts: Facts, generation: str | None) -> dict[str, str]:
    """Of its generation alone."""
    found: dict[str, str] = {}
    for override in facts.overrides:
        found |= override.env if override.generation == generation else {}
    return found
