import hashlib
import json
from datetime import UTC, datetime

import msgspec
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy import sbom
from deploy.lockfile import EnginePin, Facts, File, Licence, Lock, Model, Origin, Variant
from deploy.soundness import tree_digest
from tests.deploy.boxes import StubEngine

WEIGHTS = File(path="model.safetensors", size=7, sha256="a" * 64)
ALLOWED = File(path="tokenization.py", size=2, sha256="b" * 64)
OTHER = File(path="train.py", size=3, sha256="c" * 64)
REQUIREMENTS = """\
# made by uv
Torch==2.13.0+cpu ; sys_platform == 'linux' \\
    --hash=sha256:aaaa \\
    --hash=sha256:bbbb
uvicorn[standard]==0.54.0 --hash=sha256:cccc
"""


def variant(repo="org/name", licence="MIT", **more):
    files = (WEIGHTS, ALLOWED)
    origin = Origin(kind="huggingface", repo=repo, commit="d" * 40) if repo else Origin(kind="path")
    return Variant(
        format="safetensors",
        precision="bf16",
        size=9,
        tree=tree_digest(files),
        origin=origin,
        licence=Licence(id=licence) if licence else None,
        files=files,
        code=(ALLOWED, OTHER),
        **more,
    )


def lock(*variants, pins=()):
    models = [Model(name=f"m{number}", requested="x", variants=(one,)) for number, one in enumerate(variants)]
    return Lock(generator="test", inputs="x", models=tuple(models), engines=pins)


@pytest.fixture
def engine(tmp_path):
    found = StubEngine("vllm", "cpu", "safetensors")
    found.requirements = tmp_path / "requirements.txt"
    found.requirements.write_text(REQUIREMENTS)
    return found


def pin(content=REQUIREMENTS):
    digest = hashlib.sha256(content.encode()).hexdigest()
    return EnginePin(name="vllm", device="cpu", version="1.0", requirements=f"sha256:{digest}")


def components(text):
    return {found["bom-ref"]: found for found in json.loads(text)["components"]}


def properties(component):
    return {found["name"].partition(":")[2]: found["value"] for found in component["properties"]}


def test_a_model_is_named_by_repository_and_commit():
    facts = Facts(architecture="LlamaForCausalLM", chat_template="e" * 64)
    found = components(sbom.document(lock(variant(facts=facts)), ()))["model/m0/safetensors/bf16"]
    assert found["type"] == "machine-learning-model"
    assert (found["group"], found["name"], found["version"]) == ("org", "name", "d" * 40)
    assert found["purl"] == f"pkg:huggingface/org/name@{'d' * 40}"
    assert found["licenses"] == [{"license": {"acknowledgement": "declared", "id": "MIT"}}]
    assert properties(found) == {
        "model": "m0",
        "format": "safetensors",
        "precision": "bf16",
        "size": "9",
        "tree": tree_digest((WEIGHTS, ALLOWED)),
        "architecture": "LlamaForCausalLM",
        "chat-template": "e" * 64,
    }


def test_every_file_is_there_with_hash_and_size_and_code_is_marked():
    model = components(sbom.document(lock(variant()), ()))["model/m0/safetensors/bf16"]
    files = {found["name"]: found for found in model["components"]}
    assert {found["type"] for found in files.values()} == {"file"}
    assert files["model.safetensors"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert properties(files["model.safetensors"]) == {"size": "7"}
    assert properties(files["tokenization.py"]) == {"size": "2", "remote-code": "fetched"}
    assert properties(files["train.py"]) == {"size": "3", "remote-code": "not fetched"}


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("LicenseRef-x", {"license": {"acknowledgement": "declared", "name": "LicenseRef-x"}}),
        ("MIT AND Apache-2.0", {"acknowledgement": "declared", "expression": "MIT AND Apache-2.0"}),
    ],
)
def test_a_licence_that_spdx_does_not_list_keeps_its_name(licence, expected):
    found = components(sbom.document(lock(variant(licence=licence)), ()))
    assert found["model/m0/safetensors/bf16"]["licenses"] == [expected]


def test_a_file_of_this_machine_is_named_by_its_tree():
    found = components(sbom.document(lock(variant(repo=None, licence=None)), ()))["model/m0/safetensors/bf16"]
    assert (found["name"], found["version"]) == ("m0", tree_digest((WEIGHTS, ALLOWED)))
    assert "purl" not in found
    assert "licenses" not in found


def test_an_engine_needs_the_packages_of_its_requirement_set(engine):
    text = sbom.document(lock(variant(), pins=(pin(),)), [engine])
    found = components(text)
    assert properties(found["engine/vllm/cpu"]) == {"device": "cpu", "requirements": pin().requirements}
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in json.loads(text)["dependencies"]}
    assert needs["deployment"] == ["engine/vllm/cpu", "model/m0/safetensors/bf16"]
    assert needs["engine/vllm/cpu"] == ["pkg:pypi/torch@2.13.0%2Bcpu", "pkg:pypi/uvicorn@0.54.0"]
    assert found["pkg:pypi/uvicorn@0.54.0"]["version"] == "0.54.0"


def test_another_requirement_set_than_the_locked_one_lists_no_packages(engine):
    found = components(sbom.document(lock(variant(), pins=(pin("other"),)), [engine]))
    assert set(found) == {"engine/vllm/cpu", "model/m0/safetensors/bf16"}


def test_the_same_lock_is_the_same_bytes(engine):
    one = lock(variant(), variant("org/two"), pins=(pin(),))
    turned = msgspec.structs.replace(one, models=one.models[::-1])
    assert sbom.document(one, [engine]) == sbom.document(turned, [engine])
    changed = sbom.document(lock(variant(), pins=(pin(),)), [engine])
    assert json.loads(changed)["serialNumber"] != json.loads(sbom.document(one, [engine]))["serialNumber"]


def test_a_time_stands_in_it_only_when_it_is_told():
    one = lock(variant())
    assert "timestamp" not in json.loads(sbom.document(one, ()))["metadata"]
    timed = json.loads(sbom.document(one, (), at=datetime(2026, 11, 24, tzinfo=UTC)))
    assert timed["metadata"]["timestamp"] == "2026-11-24T00:00:00+00:00"


def test_it_is_valid_by_the_standards_own_schema(engine):
    variants = (variant(), variant(repo=None), variant(licence=None), variant(licence="MIT AND LicenseRef-x"))
    text = sbom.document(lock(*variants, pins=(pin(),)), [engine])
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_every_reference_leads_to_one_component(engine):
    text = sbom.document(lock(variant(), variant(), pins=(pin(),)), [engine])
    tree = json.loads(text)
    top = [tree["metadata"]["component"], *tree["components"]]
    refs = [found["bom-ref"] for one in top for found in (one, *one.get("components", ()))]
    assert len(refs) == len(set(refs))
    for entry in tree["dependencies"]:
        assert {entry["ref"], *entry.get("dependsOn", ())} <= {*refs, "ownweights"}
