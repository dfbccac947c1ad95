"""What holds of every plan, on any box: with the real engines, nothing started."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy import planning
from deploy.config import Config, EngineWish, ModelWish
from deploy.dimensions import Cache, Shape
from deploy.engine import Fix
from deploy.hardware import Cpu, Gpu, GpuReading, Hardware, Memory, Readings
from deploy.lockfile import Facts, File, Lock, Model, Origin, Variant
from deploy.plan import Layout, Plan
from deploy.planning.way import FEW_SLOTS, USEFUL_SLOTS
from serving.engines import ENGINES
from tests.deploy.boxes import lock

GB = 10**9
LAYOUT = Layout(
    weights=lambda variant: Path("/cache") / variant.key,
    environment=lambda engine: Path("/environments") / engine.name,
    sockets=Path("/run"),
    state=Path("/state"),
    logs=Path("/logs"),
)
VERDICTS = {"no": 0, "limits": 1, "fits": 2}
FAMILIES = {
    "gqa": (
        Cache(kind="gqa", layers=36, kv_heads=8, key_width=128, value_width=128),
        Shape(layers=36, hidden=4096, heads=32, vocabulary=151936, inner=12288),
    ),
    "mla": (
        Cache(kind="mla", layers=61, rank=512, rotary_width=64),
        Shape(layers=61, hidden=7168, heads=128, vocabulary=129280, inner=18432, experts=256, expert_inner=2048),
    ),
}


def gguf(size: int, cache: Cache, shape: Shape, precision: str = "Q4_K_M") -> Variant:
    return variant("gguf", precision, size, cache, shape)


def variant(form: str, precision: str, size: int, cache: Cache, shape: Shape) -> Variant:
    return Variant(
        format=form,  # type: ignore[arg-type]
        precision=precision,
        size=size,
        tree="sha256:" + "0" * 64,
        origin=Origin(kind="huggingface", repo="org/name", commit="c" * 40),
        facts=Facts(context=40960, cache=cache, shape=shape, architecture="Qwen3ForCausalLM"),
        files=(File(path=f"weights.{form}", size=size, sha256="a" * 64),),
    )


@st.composite
def models(draw: st.DrawFn) -> Lock:
    """One model in one to three precisions of both formats."""
    cache, shape = FAMILIES[draw(st.sampled_from(sorted(FAMILIES)))]
    whole = draw(st.integers(GB // 10, 400 * GB))
    variants = [variant("safetensors", "bf16", whole, cache, shape), gguf(whole // 3, cache, shape)]
    if draw(st.booleans()):
        variants.append(variant("safetensors", "fp8", whole // 2, cache, shape))
    return lock(*variants)


@st.composite
def boxes(draw: st.DrawFn) -> Hardware:
    """With zero to eight equal GPUs, of which others hold a part."""
    count = draw(st.sampled_from([0, 0, 1, 2, 4, 8]))
    total = draw(st.sampled_from([16, 24, 48, 80, 141, 180])) * GB
    free = [total - draw(st.integers(0, total // 2)) for _ in range(count)]
    ram = draw(st.integers(1, 512)) * GB
    return Hardware(
        platform="linux-x86_64",
        cpu=Cpu(
            architecture="x86_64",
            physical_cores=draw(st.integers(1, 64)),
            isa=("avx2", "avx512f", "bmi2", "f16c", "fma"),
        ),
        memory=Memory(total_bytes=ram),
        gpus=tuple(
            Gpu(index=index, name="GPU", compute_capability="9.0", memory_total_bytes=total) for index in range(count)
        ),
        driver="580.1" if count else None,
        cuda_major=13 if count else None,
        now=Readings(
            memory_available_bytes=draw(st.integers(0, ram)),
            gpus=tuple(GpuReading(index=index, memory_free_bytes=left) for index, left in enumerate(free)),
        ),
    )


WISHES = st.builds(
    ModelWish,
    name=st.just("chat"),
    context=st.none() | st.sampled_from([2048, 4096, 8192, 32768, 40960]),
    slots=st.none() | st.sampled_from([1, 2, 8, 64]),
)


def make(wish: ModelWish, locked: Lock, box: Hardware) -> Plan:
    config = Config(model=(wish,), engines=EngineWish(gpu=None if box.gpus else "none"))
    return planning.make(config, locked, box, ENGINES, LAYOUT)


def worth(plan: Plan, locked: Lock) -> tuple[float, ...]:
    """Larger is better: the order in which the plan itself chooses."""
    if plan.unplanned:
        return (0,)
    (chat,) = plan.models
    engine = next(
        place for place, engine in enumerate(ENGINES) if (engine.name, engine.device) == (chat.engine, chat.device)
    )
    wanted = 32768 if chat.device == "gpu" else 8192
    size = next(variant.size for variant in locked.models[0].variants if variant.key == chat.variant)
    context = chat.settings.context_tokens
    slots = chat.settings.slots
    return (1, -engine, min(context, wanted), min(slots, FEW_SLOTS), size, context, min(slots, USEFUL_SLOTS))


def richer(box: Hardware, more: int) -> Hardware:
    """The same box with more memory everywhere, all of it free."""
    now = box.now
    gpus = tuple(
        msgspec.structs.replace(gpu, memory_total_bytes=(gpu.memory_total_bytes or 0) + more) for gpu in box.gpus
    )
    readings = tuple(
        msgspec.structs.replace(one, memory_free_bytes=(one.memory_free_bytes or 0) + more) for one in now.gpus
    )
    available = (now.memory_available_bytes or 0) + more
    memory = msgspec.structs.replace(box.memory, total_bytes=(box.memory.total_bytes or 0) + more)
    now = msgspec.structs.replace(now, memory_available_bytes=available, gpus=readings)
    return msgspec.structs.replace(box, memory=memory, gpus=gpus, now=now)


@settings(deadline=None)
@given(WISHES, models(), boxes(), st.integers(1, 64 * GB))
def test_more_memory_never_gives_a_worse_plan(wish: ModelWish, locked: Lock, box: Hardware, more: int) -> None:
    assert worth(make(wish, locked, richer(box, more)), locked) >= worth(make(wish, locked, box), locked)


@settings(deadline=None)
@given(models(), boxes(), st.sampled_from([1, 4, 16]), st.integers(256, 20000), st.integers(1, 20000))
def test_more_context_never_needs_less_memory(locked: Lock, box: Hardware, slots: int, context: int, more: int) -> None:
    def need(tokens: int) -> list[int]:
        from deploy.engine import Settings

        found = []
        for engine in ENGINES:
            for one in locked.models[0].variants:
                asked = Settings(context_tokens=tokens, slots=slots, threads=1)
                asked = msgspec.structs.replace(asked, kv_cache_bytes=engine.kv_bytes(one, asked, slots))
                found.append(sum(term.bytes for term in engine.memory(one, asked, box)))
        return found

    assert all(less <= larger for less, larger in zip(need(context), need(context + more), strict=True))


def applied(wish: ModelWish, box: Hardware, fix: Fix) -> tuple[ModelWish, Hardware]:
    """As a person would who follows the hint."""
    wish = msgspec.structs.replace(wish, context=fix.context or wish.context, slots=fix.slots or wish.slots)
    if not fix.memory_bytes:
        return wish, box
    now, memory = box.now, fix.memory_bytes
    if not fix.gpus:
        now = msgspec.structs.replace(now, memory_available_bytes=memory)
        total = max(box.memory.total_bytes or 0, memory)
        return wish, msgspec.structs.replace(box, memory=Memory(total_bytes=total), now=now)
    first = box.gpus[0]
    larger = max(first.memory_total_bytes or 0, memory)
    count = max(len(box.gpus), fix.gpus)
    gpus = tuple(msgspec.structs.replace(first, index=index, memory_total_bytes=larger) for index in range(count))
    readings = tuple(GpuReading(index=index, memory_free_bytes=memory) for index in range(count))
    return wish, msgspec.structs.replace(box, gpus=gpus, now=msgspec.structs.replace(now, gpus=readings))


@settings(deadline=None)
@given(WISHES, models(), boxes())
def test_a_refused_plan_names_a_change_that_makes_it_accepted(wish: ModelWish, locked: Lock, box: Hardware) -> None:
    plan = make(wish, locked, box)
    for missing in plan.unplanned:
        fixes = [entry.fix for entry in missing.rejected if entry.fix]
        assert fixes, missing
        device = "gpu" if box.gpus else "cpu"
        usable = [fix for fix in fixes if bool(fix.gpus) == (device == "gpu") or not fix.memory_bytes]
        assert any(not make(*_reordered(applied(wish, box, fix), locked)).unplanned for fix in usable), fixes


def _reordered(changed: tuple[ModelWish, Hardware], locked: Lock) -> tuple[ModelWish, Lock, Hardware]:
    return changed[0], locked, changed[1]


@settings(deadline=None)
@given(WISHES, models(), boxes())
def test_what_is_planned_fits_into_what_can_be_taken(wish: ModelWish, locked: Lock, box: Hardware) -> None:
    for chat in make(wish, locked, box).models:
        held = sum(term.bytes for term in chat.memory)
        assert chat.room_bytes is None or held <= chat.room_bytes
        assert wish.context in (None, chat.settings.context_tokens)
        assert wish.slots in (None, chat.settings.slots)
        assert chat.verdict == ("limits" if chat.limits else "fits")
        assert math.isfinite(held)


def test_the_same_inputs_give_the_same_bytes() -> None:
    cache, shape = FAMILIES["gqa"]
    model = Model(name="chat", requested="x", variants=(gguf(GB, cache, shape),))
    locked = Lock(generator="test", inputs="sha256:0", models=(model,))
    box = Hardware(platform="linux-x86_64", cpu=Cpu(architecture="x86_64"), memory=Memory())
    made = [msgspec.json.encode(make(ModelWish(name="chat"), locked, box)) for _ in range(2)]
    assert made[0] == made[1]
    assert msgspec.json.encode(msgspec.json.decode(made[0], type=Plan)) == made[0]
