"""What the kernel lets us have: limits of this very process, and control groups as files."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.checks import limits
from deploy.engine import Fix
from deploy.hardware import Memory
from deploy.plan import Rejection, Unplanned
from tests.deploy.checks.contexts import GB, box, context, model, plan


@pytest.fixture
def hard() -> Iterator[int]:
    """The hard limit of open files; the soft ones are put back."""
    kinds = (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_DATA)
    before = {kind: resource.getrlimit(kind) for kind in kinds}
    yield before[resource.RLIMIT_NOFILE][1]
    for kind, limit in before.items():
        resource.setrlimit(kind, limit)


def test_the_limit_of_open_files(hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    verdict = limits.open_files(context())
    assert verdict.status == "warn"
    assert verdict.seen.startswith("at most 512 open files")
    assert (verdict.hint or "").startswith(("ulimit -n ", "sudo prlimit "))
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    assert limits.open_files(context()).status == "ok"
    resource.setrlimit(resource.RLIMIT_NOFILE, (255, hard))
    assert limits.open_files(context()).status == "fail"


ROOMY = 1 << 40
"""More than this process maps, and less than the box below has."""


@pytest.mark.parametrize("kind", [resource.RLIMIT_AS, resource.RLIMIT_DATA], ids=["as", "data"])
@pytest.mark.parametrize(
    ("total", "needs", "status"),
    [
        (GB, GB, "ok"),
        (4 * ROOMY, GB, "warn"),
        (None, GB, "warn"),
        (4 * ROOMY, 2 * ROOMY, "fail"),
        (GB, 2 * ROOMY, "fail"),
    ],
)
def test_the_limit_of_address_space(hard: int, kind: int, total: int | None, needs: int, status: str) -> None:
    assert limits.address_space(context(plan=plan(model(needs_bytes=10**15)))).status == "ok", "no limit"
    resource.setrlimit(kind, (ROOMY, resource.getrlimit(kind)[1]))
    hardware = box(memory=Memory(total_bytes=total))
    verdict = limits.address_space(
        context(hardware=hardware, plan=plan(model(needs_bytes=GB), model(needs_bytes=needs)))
    )
    assert verdict.status == status
    if status != "ok":
        assert "1.10 TB" in verdict.seen
        assert verdict.hint == ("ulimit -v unlimited" if kind == resource.RLIMIT_AS else "ulimit -d unlimited")


SWAP = Memory(total_bytes=16 * GB, swap_total_bytes=8 * GB)


@pytest.mark.parametrize(
    ("used", "free", "status"),
    [(3 * GB, GB, "warn"), (3 * GB, 12 * GB, "ok"), (10_000_000, GB, "ok"), (None, GB, "skip"), (GB, None, "skip")],
)
def test_swap_matters_where_memory_is_short(used: int | None, free: int | None, status: str) -> None:
    verdict = limits.swap(context(hardware=box(memory=SWAP, swap_used_bytes=used, memory_available_bytes=free)))
    assert verdict.status == status
    assert (verdict.hint or "").startswith("sudo swapoff") is (status == "warn")


def test_no_swap_is_in_order() -> None:
    assert limits.swap(context()).status == "ok"


LIMITED = Memory(total_bytes=16 * GB, limit_bytes=4 * GB)
STARVED = Unplanned(
    model="chat",
    reason="no engine here can run model `chat`",
    hint="more memory",
    rejected=(Rejection(what="llamacpp", reason="too large", change="8 GB", fix=Fix(memory_bytes=8 * GB)),),
)
FEW_GPUS = Unplanned(
    model="chat",
    reason="no engine here can run model `chat`",
    hint="more GPUs",
    rejected=(Rejection(what="vllm", reason="too large", change="2 GPUs", fix=Fix(memory_bytes=8 * GB, gpus=2)),),
)


@pytest.mark.parametrize(
    ("decided", "status"),
    [
        (plan(model(needs_bytes=5 * GB)), "fail"),
        (plan(model(needs_bytes=5 * GB, device="gpu")), "ok"),
        (plan(model(needs_bytes=3 * GB)), "ok"),
        (plan(model(needs_bytes=3 * GB, limits=("short",))), "warn"),
        (plan(unplanned=(STARVED,)), "warn"),
        (plan(unplanned=(FEW_GPUS,)), "ok"),
        (None, "ok"),
    ],
    ids=["over", "gpu", "below", "limited", "starved", "few-gpus", "unplanned"],
)
def test_the_control_groups_memory(decided: object, status: str) -> None:
    verdict = limits.memory_limit(context(hardware=box(memory=LIMITED), plan=decided))
    assert verdict.status == status
    assert "4.0 GB of 16.0 GB memory allowed" in verdict.seen
    assert (verdict.hint or "").startswith("docker update --memory ") is (status in ("warn", "fail"))


def test_without_a_limit_of_memory_nothing_is_cut() -> None:
    assert limits.memory_limit(context(plan=plan(model(needs_bytes=99 * GB)))).seen == "no limit of memory"


def group(root: Path, membership: str, stat: str) -> Path:
    """A root with our control group in it; the path of its cpu.stat."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"9:name=systemd:/\n{membership}\n")
    path = root / "sys/fs/cgroup" / stat
    path.parent.mkdir(parents=True)
    return path


GROUPS = [
    ("0::/user.slice/box", "user.slice/box/cpu.stat"),
    ("0::/in/a/namespace", "cpu.stat"),
    ("3:cpu,cpuacct:/docker/box", "cpu,cpuacct/docker/box/cpu.stat"),
]


@pytest.mark.parametrize(("membership", "stat"), GROUPS, ids=["v2", "namespace", "v1"])
@pytest.mark.parametrize(("more", "status"), [(0, "ok"), (7, "warn")])
def test_a_quota_that_is_used_up_now(tmp_path: Path, membership: str, stat: str, more: int, status: str) -> None:
    path = group(tmp_path, membership, stat)

    def write(count: int) -> None:
        path.write_text(f"nr_periods 100\nnr_throttled {count}\nthrottled_time 1\n")

    write(20)
    verdict = limits.cpu_quota(context(hardware=box(quota_cores=1.5)), tmp_path, lambda _: write(20 + more))
    assert verdict.status == status
    assert verdict.seen.startswith("1.5 core(s) allowed")
    if status == "warn":
        assert "used up in 7 periods" in verdict.seen
        assert (verdict.hint or "").startswith("docker update --cpus 2.5 ")


def test_a_quota_of_less_than_one_core_and_none_at_all(tmp_path: Path) -> None:
    assert limits.cpu_quota(context(hardware=box(quota_cores=0.5)), tmp_path).status == "warn"
    assert limits.cpu_quota(context(), tmp_path).seen == "no quota of CPU time"


def test_a_quota_whose_use_cannot_be_read_is_said_to_be_unknown(tmp_path: Path) -> None:
    verdict = limits.cpu_quota(context(hardware=box(quota_cores=2.0)), tmp_path, lambda _: None)
    assert verdict.status == "ok"
    assert "unknown" in verdict.seen
