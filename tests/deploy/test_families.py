"""One real-shaped repository per family, from the Hub to verified files and a plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from deploy import config, lockfile, planning
from deploy.config import Config
from deploy.dimensions import Cache, Recurrent, Shape
from deploy.errors import LockError
from deploy.hardware import detection
from deploy.lockfile import Lock, Variant
from deploy.resolving import locking
from deploy.weights import cache, puller, verify
from serving.engines import ENGINES
from tests import families, hubserver
from tests.deploy.boxes import LAYOUT
from tests.hubrepo import Repo

HARDWARE = Path(__file__).parents[1] / "fixtures" / "hardware"


class Family(NamedTuple):
    """``per_token``: KV bytes at 16 bits, as the worked figures of the public configurations have it."""

    repo: Callable[[], Repo]
    precision: str
    cache: Cache
    shape: Shape
    per_token: int
    context: int
    template: str | None
    licence: str
    text: str | None = "LICENSE"
    code: int = 0
    types: tuple[str, ...] = ("BF16",)


def gqa(layers: int, *, kv_heads: int, head: int) -> Cache:
    """Keys and values are as wide as each other."""
    return Cache(kind="gqa", layers=layers, kv_heads=kv_heads, key_width=head, value_width=head)


INDEXER_BYTES = 132
"""Per token and layer: a key of 128 in 8 bits, and its scale in 32."""
FP8 = ("BF16", "F32", "F8_E4M3")
DEEPSEEK = Cache(kind="mla", layers=61, rank=512, rotary_width=64)
DEEPSEEK_SHAPE = {"layers": 61, "hidden": 7168, "inner": 18432, "expert_inner": 2048, "quantized_block": 128}
DELTA = Recurrent(layers=48, key_heads=16, value_heads=48, key_width=128, value_width=128, kernel=4, element_bytes=4)
FAMILIES = {
    "deepseek-v3.2": Family(
        families.deepseek_v3_2,
        "fp8",
        msgspec.structs.replace(DEEPSEEK, indexer_width=128),
        Shape(heads=128, vocabulary=129280, experts=256, **DEEPSEEK_SHAPE),
        70_272,
        163_840,
        None,
        "MIT",
        types=FP8,
    ),
    "qwen3": Family(
        families.qwen3_8b,
        "bf16",
        gqa(36, kv_heads=8, head=128),
        Shape(layers=36, hidden=4096, heads=32, vocabulary=151936, inner=12288),
        147_456,
        40_960,
        "qwen3",
        "Apache-2.0",
    ),
    "qwen3.5": Family(
        families.qwen3_5_27b,
        "bf16",
        msgspec.structs.replace(gqa(16, kv_heads=4, head=256), kind="hybrid-gqa", recurrent=DELTA),
        Shape(layers=64, hidden=5120, heads=24, vocabulary=248320, inner=17408),
        65_536,
        262_144,
        "qwen3.5",
        "Apache-2.0",
    ),
    "glm-4.5-air": Family(
        families.glm_4_5_air,
        "bf16",
        gqa(46, kv_heads=8, head=128),
        Shape(layers=46, hidden=4096, heads=96, vocabulary=151552, inner=10944, experts=128, expert_inner=1408),
        188_416,
        131_072,
        "glm-4.5",
        "MIT",
        None,
        types=("BF16", "F32"),
    ),
    "glm-5": Family(
        families.glm_5,
        "bf16",
        Cache(kind="mla", layers=78, rank=512, rotary_width=64, indexer_width=128),
        Shape(layers=78, hidden=6144, heads=64, vocabulary=154880, inner=12288, experts=256, expert_inner=2048),
        89_856,
        202_752,
        "glm-5",
        "MIT",
        None,
        types=("BF16", "F32"),
    ),
    "kimi-k2": Family(
        families.kimi_k2,
        "fp8",
        DEEPSEEK,
        Shape(heads=64, vocabulary=163840, experts=384, **DEEPSEEK_SHAPE),
        70_272,
        131_072,
        "kimi-k2",
        "LicenseRef-modified-mit",
        code=4,
        types=FP8,
    ),
    "minimax-m2": Family(
        families.minimax_m2,
        "fp8",
        gqa(62, kv_heads=8, head=128),
        Shape(layers=62, hidden=3072, heads=48, vocabulary=200064, experts=256, expert_inner=1536, quantized_block=128),
        253_952,
        196_608,
        "minimax-m2",
        "LicenseRef-modified-mit",
        code=2,
        types=FP8,
    ),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture
def repo(family: Family, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
    """The family's repository, served."""
    found = family.repo()
    with hubserver.hub([found]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield found


def wish(repo: Repo, **keys: object) -> Config:
    """Kimi's tokenizer is code of its own: allowed here, as a user would who has read it."""
    if repo.id == families.kimi_k2().id:
        keys = {"allow-remote-code": hashes(repo)} | keys
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"source": f"hf:{repo.id}", **keys}.items()]
    return config.parse("\n".join(["[[model]]", 'name = "chat"', *lines]))


def hashes(repo: Repo) -> list[str]:
    """Of the repository's code, as models.toml allows it."""
    return sorted(f"sha256:{blob.sha256}" for path, blob in repo.blobs.items() if path.endswith(".py"))


def lock(wanted: Config, folder: Path) -> Lock:
    return locking.lock(wanted, previous=None, engines=(), choose=lambda _: ("", ""), base=folder)


def locked(wanted: Config, folder: Path) -> Variant:
    (variant,) = lock(wanted, folder).models[0].variants
    return variant


def sha256(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def test_what_the_lock_says(family: Family, repo: Repo, tmp_path: Path) -> None:
    variant = locked(wish(repo), tmp_path)
    facts, licence = variant.facts, variant.licence
    assert variant.key == f"safetensors/{family.precision}"
    assert (facts.cache, facts.shape) == (family.cache, family.shape)
    assert (facts.attention, facts.kv_bytes_per_token) == (family.cache.kind, family.per_token)
    assert facts.context == family.context
    assert facts.chat_template == (family.template and sha256(families.template(family.template)))
    assert licence is not None
    assert (licence.id, licence.file, licence.gated) == (family.licence, family.text, False)
    assert licence.text == (family.text and repo.blobs[family.text].sha256)
    assert (variant.origin.repo, variant.origin.commit) == (repo.id, repo.commit)


def test_its_files_are_those_that_an_engine_reads(family: Family, repo: Repo, tmp_path: Path) -> None:
    variant = locked(wish(repo), tmp_path)
    left = {path for path in repo.blobs if "/" in path or path in ("README.md", ".gitattributes")}
    code = {path for path in repo.blobs if path.endswith(".py") and "/" not in path}
    runs = code if family.repo is families.kimi_k2 else set()
    assert {file.path for file in variant.files} == set(repo.blobs) - left - code | runs
    assert {file.path for file in variant.code} == code
    assert len(code) == family.code
    for file in (*variant.files, *variant.code):
        blob = repo.blobs[file.path]
        assert (file.size, file.sha256, file.blob) == (blob.size, blob.sha256, repo.etag(file.path))


def test_its_tensors_are_counted_over_all_shards(family: Family, repo: Repo, tmp_path: Path) -> None:
    variant = locked(wish(repo), tmp_path)
    assert variant.tensors is not None
    index = json.loads(bytes(repo.files["model.safetensors.index.json"]))
    assert variant.tensors.count == len(index["weight_map"])
    assert tuple(variant.tensors.elements) == family.types
    assert variant.facts.parameters == sum(variant.tensors.elements.values())


def test_it_is_pulled_and_verified(family: Family, repo: Repo, tmp_path: Path) -> None:
    variant = locked(wish(repo), tmp_path)
    puller.pull((variant,))
    assert verify.check(variant, full=True) == ()
    snapshot = cache.snapshot(variant)
    assert {path.name for path in snapshot.iterdir()} == {file.path for file in variant.files}
    assert (snapshot / "config.json").read_bytes() == repo.files["config.json"]


def test_locked_twice_it_is_the_same_bytes(family: Family, repo: Repo, tmp_path: Path) -> None:
    first, second = (lockfile.write(lock(wish(repo), tmp_path)) for _ in range(2))
    assert first == second


def test_a_gpu_box_can_plan_it(family: Family, repo: Repo, tmp_path: Path) -> None:
    found = lock(wish(repo), tmp_path)
    hardware = detection.load(HARDWARE / "h100.json")
    (chat,) = planning.make(wish(repo), found, hardware, ENGINES, LAYOUT).models
    assert (chat.engine, chat.device, chat.verdict) == ("vllm", "gpu", "fits")
    assert chat.settings.context_tokens == family.context
    assert chat.settings.kv_cache_bytes is not None
    assert chat.kv_tokens is not None
    indexer = INDEXER_BYTES * family.cache.layers if family.cache.indexer_width else 0
    per_token = chat.settings.kv_cache_bytes / chat.kv_tokens
    # Whole blocks, and of a hybrid pages that states are padded to.
    assert 1 <= per_token / (family.per_token + indexer) < 1.03
    assert ("--trust-remote-code" in chat.command.argv) == (family.repo is families.kimi_k2)


class TestKimi:
    """A tokenizer that is code: refused until each file of the repository's code is allowed."""

    @pytest.fixture
    def family(self) -> Family:
        return FAMILIES["kimi-k2"]

    def test_without_a_word_of_the_user_it_is_refused(self, repo: Repo, tmp_path: Path) -> None:
        with pytest.raises(LockError, match=r"tokenizer_config.json: tokenization_kimi.TikTokenTokenizer") as caught:
            lock(wish(repo, **{"allow-remote-code": []}), tmp_path)
        assert all(name in caught.value.message for name in families.KIMI_CODE)
        assert json.dumps(hashes(repo)) in str(caught.value.hint)

    def test_a_changed_file_is_refused_again(self, repo: Repo, tmp_path: Path) -> None:
        with pytest.raises(LockError, match=r"tool_declaration_ts\.py"):
            lock(wish(repo, **{"allow-remote-code": hashes(repo)[1:]}), tmp_path)


class TestSplitGguf:
    """Three parts of one model, which are one variant."""

    @pytest.fixture
    def repo(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
        found = families.split_gguf(tmp_path)
        with hubserver.hub([found]) as server:
            monkeypatch.setenv("HF_ENDPOINT", server.url)
            yield found

    def test_what_the_lock_says(self, repo: Repo, tmp_path: Path) -> None:
        variant = locked(wish(repo, precision="Q4_K_M"), tmp_path)
        parts = [families.SPLIT.format(number) for number in (1, 2, 3)]
        assert variant.key == "gguf/Q4_K_M"
        assert [file.path for file in variant.files] == ["LICENSE", *parts]
        assert variant.facts.cache == gqa(94, kv_heads=4, head=128)
        assert variant.facts.kv_bytes_per_token == 192_512
        assert variant.facts.shape == Shape(layers=94, hidden=4096, heads=64, vocabulary=3000)
        assert variant.facts.chat_template == sha256(families.template("qwen3-2507"))
        assert variant.tensors == lockfile.Tensors(count=9, elements={"F32": 16, "Q4_K": 2048, "Q6_K": 2048})
        assert variant.facts.parameters == 4112

    def test_it_is_pulled_verified_and_handed_on_by_its_first_part(self, repo: Repo, tmp_path: Path) -> None:
        variant = locked(wish(repo, precision="Q4_K_M"), tmp_path)
        puller.pull((variant,))
        assert verify.check(variant, full=True) == ()
        assert cache.weights(variant) == cache.snapshot(variant) / families.SPLIT.format(1)

    def test_locked_twice_it_is_the_same_bytes(self, repo: Repo, tmp_path: Path) -> None:
        wanted = wish(repo, precision="Q4_K_M")
        assert lockfile.write(lock(wanted, tmp_path)) == lockfile.write(lock(wanted, tmp_path))
