"""`auto`: the order, the limits, and a reason for every row that was passed over."""

from __future__ import annotations

import pytest

from deploy import auto, catalog
from deploy.errors import PlanError
from tests.deploy.boxes import GB, box, gpu
from tests.hubserver import hub


def pick(*, reachable: bool, cores: int = 2, free_bytes: int = 16 * GB) -> auto.Best:
    return auto.pick(catalog.rows(), box(cores=cores, free_bytes=free_bytes), reachable=reachable)


def test_without_a_hub_two_cores_get_the_real_qwen_from_the_package_index() -> None:
    best = pick(reachable=False)
    assert best.id == "qwen2.5-coder-0.5b"
    assert [entry.id for entry in best.passed if entry.only_reach] == ["qwen3-0.6b"]
    assert "qwen3-0.6b: only the Hub has it" in best.reason


def test_with_a_hub_the_larger_row_is_taken() -> None:
    assert pick(reachable=True).id == "qwen3-0.6b"


def test_more_cores_get_a_larger_model_until_the_memory_bus_is_the_limit() -> None:
    assert pick(reachable=True, cores=8).id == "qwen3-4b"
    assert pick(reachable=True, cores=64).id == "qwen3-4b"


def test_little_memory_gets_a_small_model() -> None:
    best = pick(reachable=False, free_bytes=GB // 2)
    assert best.id == "smollm2-135m"
    reasons = {entry.id: entry.reason for entry in best.passed}
    assert reasons["qwen2.5-coder-0.5b"] == "592 MB is more than 70% of 500 MB free memory"


def test_conditions_of_a_licence_pass_a_row_over() -> None:
    reasons = {entry.id: entry.reason for entry in pick(reachable=True).passed}
    conditional = [row.id for row in catalog.rows() if row.licence.commercial != "yes"]
    assert conditional
    assert all("licence" in reasons[name] for name in conditional)


def test_a_gpu_gets_the_largest_bfloat16_row_that_fits() -> None:
    best = auto.pick(catalog.rows(), box(gpus=(gpu(total_bytes=32 * GB),)), reachable=True)
    assert best.id == "qwen3-8b"


def test_no_row_left_names_every_reason() -> None:
    with pytest.raises(PlanError, match="no catalogue row fits") as caught:
        pick(reachable=False, free_bytes=1000)
    assert "smollm2-135m: 287 MB is more than 70% of 1 kB free memory" in str(caught.value)


def test_an_unreachable_hub_is_one_loud_line(capsys: pytest.CaptureFixture[str]) -> None:
    name, reason = auto.choose(box(cores=2), "chat")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the Hub (http://127.0.0.1:9) cannot be reached")
    assert "`chat` is `qwen2.5-coder-0.5b` instead of `qwen3-0.6b`" in line
    assert "ownweights lock --upgrade chat && make deploy" in line
    assert name in reason


def test_a_reachable_hub_is_not_mentioned(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with hub([]) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        assert auto.choose(box(cores=2), "chat")[0] == "qwen3-0.6b"
    assert capsys.readouterr().err == ""
