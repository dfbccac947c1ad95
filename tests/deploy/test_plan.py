"""The plan's nouns: its verdict, insisting on it, and names of files."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import plan as plans
from deploy.errors import PlanError
from deploy.plan import Plan, insist, slug
from tests.deploy.boxes import GB, box, lock, plan, variant

FITS = plan("", lock(variant()), box())
LIMITS = plan("", lock(variant(kv=None)), box())
NO = plan("", lock(variant(), variant(kind="safetensors", precision="bf16")), box(free_bytes=GB // 2))


def test_the_verdict_is_the_worst_of_all_models() -> None:
    assert [made.verdict for made in (FITS, LIMITS, NO)] == ["fits", "limits", "no"]
    both = msgspec.structs.replace(FITS, models=(*FITS.models, *LIMITS.models))
    assert both.verdict == "limits"
    assert msgspec.structs.replace(both, unplanned=NO.unplanned).verdict == "no"


def test_insisting_on_a_plan_that_works_gives_it_back() -> None:
    assert insist(FITS) is FITS
    assert insist(LIMITS) is LIMITS


def test_insisting_on_one_that_does_not_names_every_rejection_and_the_hint() -> None:
    with pytest.raises(PlanError, match="no engine here can run model `chat`") as caught:
        insist(NO)
    lines = caught.value.message.splitlines()[1:]
    assert len(lines) == len(NO.unplanned[0].rejected) == 6
    assert all(" → " in line for line in lines)
    assert caught.value.hint == NO.unplanned[0].hint


def test_the_json_of_a_plan_is_the_plan() -> None:
    for made in (FITS, LIMITS, NO):
        assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made


@given(st.lists(st.text("aB9._:/-", min_size=1, max_size=12), unique=True))
def test_file_names_of_models_never_collide_and_hold_no_folder(names: list[str]) -> None:
    slugs = [slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    assert not any(set(one) & set("/:") for one in slugs)


def test_a_safe_name_is_its_own_file_name() -> None:
    assert slug("qwen3-0.6b") == "qwen3-0.6b"


def test_a_socket_has_room_for_a_short_name_of_any_model() -> None:
    assert len(plans.short("x" * 128)) == 8
    assert plans.short("a") != plans.short("b")
