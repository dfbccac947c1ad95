"""A plan in words: what is said once, what is wrapped, and what never is."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.commands import planned
from deploy.engine import Command, Split
from deploy.outlook import Fetch, Outlook
from deploy.plan import ModelPlan, Rejection, Speed, Unplanned
from tests.deploy.measured import starts

ARGV = ("python", "a path with spaces", "--flag", "x" * 200)


def model(folder: Path, **changes: Any) -> ModelPlan:
    made = starts.planned(folder, "chat", Command(argv=ARGV, env={"NAME": "two words"}))
    return msgspec.structs.replace(made, **changes)


def shown(capsys: pytest.CaptureFixture[str], *models: ModelPlan, **changes: Any) -> list[str]:
    found = Outlook(
        verdict="fits", hardware="h", lock="l", locked=True, models=models, unplanned=(), beside=(), fetch=Fetch()
    )
    planned.show(msgspec.structs.replace(found, **changes))
    return capsys.readouterr().out.splitlines()


def one(lines: list[str], label: str) -> str:
    (text,) = (line.strip().removeprefix(label).strip() for line in lines if line.split()[:1] == [label])
    return text


def test_command_and_environment_are_one_line_that_a_shell_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(capsys, model(tmp_path))
    assert tuple(shlex.split(one(lines, "command"))) == ARGV
    assert shlex.split(one(lines, "env")) == ["NAME=two words"]


def test_reasons_are_wrapped_below_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, model(tmp_path, because=("many words " * 20,)))
    first = next(number for number, line in enumerate(lines) if line.startswith("  because   many"))
    assert lines[first + 1].startswith("            many") or lines[first + 1].startswith("            words")
    assert len(lines[first]) <= planned.COLUMNS
    assert sum(line.count("many words") for line in lines) >= 18


def test_what_was_rejected_for_one_reason_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rejected = tuple(
        Rejection(what=what, reason=reason, change="another box", device="cpu")
        for what, reason in (("a", "too old"), ("b", "too small"), ("c", "too old"))
    )
    lines = shown(capsys, model(tmp_path, rejected=rejected))
    assert [line.strip() for line in lines if line.startswith("  not ")] == [
        "not       a; c: too old → another box",
        "not       b: too small → another box",
    ]


def test_what_is_no_matter_of_this_box_is_counted_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = tuple(
        Rejection(what=what, reason="reads gguf only", change="gguf", device="cpu", reads=False) for what in "ab"
    )
    rows = tuple(Rejection(what=f"catalogue row {n}", reason=f"larger {n}", change="a box") for n in range(5))
    lines = shown(capsys, model(tmp_path, rejected=(*pairs, *rows)))
    assert [line.strip().removeprefix("not").strip() for line in lines if line.startswith("  not ")] == [
        "catalogue row 0: larger 0 → a box",
        "catalogue row 1: larger 1 → a box",
        "catalogue row 2: larger 2 → a box",
        "2 more catalogue rows that are larger: --json has them",
        "2 pairs of an engine and a format that it does not read: --json has them",
    ]


def test_a_source_that_all_terms_share_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alike = (starts.term("weights", 700), starts.term("KV cache", 300))
    assert one(shown(capsys, model(tmp_path, memory=alike)), "source") == "a test"
    other = msgspec.structs.replace(alike[1], source="a card")
    lines = shown(capsys, model(tmp_path, memory=(alike[0], other)))
    sources = [line.split(maxsplit=1)[1] for line in lines if line.startswith("  source")]
    assert sources == ["weights: a test", "KV cache: a card"]


def test_a_cache_that_requests_share_is_promised_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = model(tmp_path)
    assert one(shown(capsys, plan), "promise") == "2 requests at once, up to 4096 tokens each"
    scarce = msgspec.structs.replace(plan, kv_tokens=100)
    assert one(shown(capsys, scarce), "promise") == "2 requests at once, up to 4096 tokens each, 100 together"
    copies = msgspec.structs.replace(plan.settings, slots=8, split=Split(data=2))
    doubled = msgspec.structs.replace(scarce, settings=copies)
    assert one(shown(capsys, doubled), "promise") == "8 requests at once, up to 4096 tokens each, 200 together"
    single = msgspec.structs.replace(plan, settings=msgspec.structs.replace(plan.settings, slots=1))
    assert one(shown(capsys, single), "promise") == "1 request at once, up to 4096 tokens each"


@pytest.mark.parametrize(("tokens_per_s", "words"), [(41.7, "42 tokens/s"), (0.94, "0.9 tokens/s")])
def test_a_slow_speed_is_not_rounded_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tokens_per_s: float, words: str
) -> None:
    speed = Speed(tokens_per_s=tokens_per_s, provenance="measured", source="a benchmark")
    assert one(shown(capsys, model(tmp_path, speed=speed)), "speed") == f"{words} per stream (measured: a benchmark)"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0.4 s"), (119.0, "119 s"), (120.0, "2 min"), (7100.0, "118 min"), (9000.0, "2.5 h")]
)
def test_times_have_a_unit_that_people_count_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seconds: float, words: str
) -> None:
    lines = shown(capsys, model(tmp_path), fetch=Fetch(bytes=10**9, disk_bytes=2 * 10**9, seconds=seconds))
    assert one(lines, "fetch") == f"1.0 GB of weights, about {words} at the rate of the last pull"
    assert one(lines, "disk") == "2.0 GB needed, unknown free where weights lie"


def test_what_does_not_fit_ends_with_what_to_do_and_fetches_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    missing = Unplanned(model="chat", reason="no row:\n  a: too large", hint="a smaller model", rejected=())
    lines = shown(capsys, verdict="no", unplanned=(missing,))
    assert lines == [
        "chat: does not fit",
        "  because   no row:",
        "  not       a: too large",
        "  hint      a smaller model",
        "",
    ]
