from __future__ import annotations

import itertools

import msgspec

from benchmarks.workload import Workload, vocabulary

WORKLOAD = Workload(seed=1, prompt_tokens=200, output_tokens=128, mode="capacity")
RUN = "5f" * 16


def test_the_same_place_of_the_same_run_has_the_same_prompt() -> None:
    again = Workload(seed=1, prompt_tokens=200, output_tokens=128, mode="capacity")
    assert WORKLOAD.prompt(RUN, "c4-r0", 3) == again.prompt(RUN, "c4-r0", 3)


def test_no_two_prompts_of_a_cell_begin_with_the_same_word_while_there_are_words() -> None:
    opening = [WORKLOAD.prompt(RUN, "c4-r0", index).split()[0] for index in range(len(vocabulary()))]
    assert len(set(opening)) == len(opening)


def test_the_first_two_words_go_on_being_unique() -> None:
    openings = {tuple(WORKLOAD.prompt(RUN, "c1-r0", index).split()[:2]) for index in range(3000)}
    assert len(openings) == 3000


def test_cells_runs_and_seeds_share_no_beginning() -> None:
    other = msgspec.structs.replace(WORKLOAD, seed=2)
    prompts = [
        *(WORKLOAD.prompt(RUN, "c1-r0", index) for index in range(50)),
        *(WORKLOAD.prompt(RUN, "c1-r1", index) for index in range(50)),
        *(WORKLOAD.prompt("60" * 16, "c1-r0", index) for index in range(50)),
        *(other.prompt(RUN, "c1-r0", index) for index in range(50)),
    ]
    shared = [len(_common(one.split(), two.split())) for one, two in itertools.combinations(prompts, 2)]
    assert max(shared) <= 2


def test_the_length_follows_the_target() -> None:
    for target in (16, 200, 2000):
        text = msgspec.structs.replace(WORKLOAD, prompt_tokens=target).prompt(RUN, "c1-r0", 0)
        assert abs(len(text.split()) - target) <= 2


def test_the_digest_is_of_the_definition_and_not_of_the_run() -> None:
    assert WORKLOAD.sha256 == Workload(seed=1, prompt_tokens=200, output_tokens=128, mode="capacity").sha256
    for change in ({"seed": 2}, {"prompt_tokens": 201}, {"output_tokens": 64}, {"mode": "behaviour"}):
        assert msgspec.structs.replace(WORKLOAD, **change).sha256 != WORKLOAD.sha256


def _common(one: list[str], two: list[str]) -> list[str]:
    return [a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False))]
