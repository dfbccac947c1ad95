"""Recipes: what is left to the plan, and one override per generation."""

from __future__ import annotations

from deploy.catalog import recipe
from deploy.catalog.recipe import Generation
from deploy.dimensions import Override


def test_what_the_plan_decides_is_left_out_in_both_spellings() -> None:
    given = ("--block-size", "128", "--max-model-len=200000", "--max-num-seqs", "16", "--trust-remote-code", "--a=b")
    assert recipe.unplanned(given) == ("--block-size", "128", "--a=b")
    assert recipe.unplanned(("--x", "--max-num-seqs")) == ("--x",)


def test_a_later_entry_of_a_generation_adds_to_an_earlier_one() -> None:
    both = recipe.overrides(
        [
            Generation(generation="hopper", args=("--a", "--tensor-parallel-size", "8"), context=9, source="s"),
            Generation(generation="ada", env={"X": "1"}, source="s"),
            Generation(generation="hopper", args=("--b",), env={"Y": "2"}, slots=3, source="s"),
        ]
    )
    assert both == (
        Override(generation="hopper", args=("--a", "--b"), env={"Y": "2"}, context=9, slots=3),
        Override(generation="ada", env={"X": "1"}),
    )
