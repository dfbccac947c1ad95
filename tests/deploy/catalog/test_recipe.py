"""Recipes: what is left to the plan, one override per generation, and words that are no recipe's."""

from __future__ import annotations

import pytest

from deploy import vocabulary
from deploy.catalog import recipe
from deploy.catalog.recipe import Generation
from deploy.dimensions import Override
from deploy.lockfile import Facts
from serving.engines import vllm_recipe


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


@pytest.mark.parametrize("flag", sorted(vocabulary.FLAGS - {vocabulary.COMPILATION}))
def test_the_adapter_takes_every_flag_that_a_row_may_have(flag: str) -> None:
    assert list(vocabulary.strange_flags((flag,))) == []
    assert vllm_recipe.unasked(Facts(vllm_args=(flag,))) is None


@pytest.mark.parametrize("key", sorted(vocabulary.COMPILATION_KEYS))
def test_the_adapter_takes_every_key_of_compilation_that_a_row_may_have(key: str) -> None:
    for args in ((f"{vocabulary.COMPILATION}.{key}=1",), (vocabulary.COMPILATION, f'{{"{key}": 1}}')):
        assert list(vocabulary.strange_flags(args)) == []
        assert vllm_recipe.unasked(Facts(vllm_args=args)) is None


@pytest.mark.parametrize("name", sorted(vocabulary.VARIABLES))
def test_the_adapter_takes_every_variable_that_a_row_may_have(name: str) -> None:
    env = {name: "a.B-1:2,c_3"}
    assert list(vocabulary.strange_variables(env)) == []
    assert vllm_recipe.unasked(Facts(overrides=(Override(generation="hopper", env=env),))) is None


@pytest.mark.parametrize(
    "args",
    [
        *(("--hf-overrides", "{}"), ("--host=0.0.0.0",), ("--chat-template", "x.jinja"), ("--enforce-eager",)),
        (vocabulary.COMPILATION, '{"backend": "os.system"}'),
        (vocabulary.COMPILATION, "[" * 100_000),
        (f"{vocabulary.COMPILATION}.backend=os.system",),
        (vocabulary.COMPILATION,),
    ],
)
def test_others_are_named_without_their_value(args: tuple[str, ...]) -> None:
    assert list(vocabulary.strange_flags(("--tool-call-parser", "hermes", *args))) == [args[0].partition("=")[0]]
