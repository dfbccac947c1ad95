import hashlib
import json
import os
import shutil
from contextlib import ExitStack

import msgspec
import pytest

from deploy import catalog, config, hub, lockfile, soundness
from deploy.config import ModelWish
from deploy.errors import ConfigError, LockError, PlaceError
from deploy.lockfile import Licence, Passed, Place
from deploy.resolving import listed, locking, resolution
from deploy.resolving.locking import Chosen
from deploy.resolving.resolution import Request
from tests import hubserver, rows, tiny
from tests.deploy.boxes import StubEngine
from tests.hubserver import Repo

PINNED = [row.id for row in catalog.rows() if row.pinned]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    return tiny.gguf(tmp_path_factory.mktemp("gguf") / "tiny-F16.gguf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.huggingface(tmp_path_factory.mktemp("huggingface"))


@pytest.fixture
def serve(monkeypatch):
    """Serve repositories for the rest of the test; returns the Hub."""
    with ExitStack() as stack:

        def start(*repos):
            server = stack.enter_context(hubserver.hub(repos))
            monkeypatch.setenv("HF_ENDPOINT", server.url)
            return server

        yield start


def never(_):
    raise AssertionError("nothing is to be chosen")


CHOSEN = Chosen(
    id="qwen3-4b",
    variant="gguf/Q4_K_M",
    reason="it fits",
    passed=(
        Passed(id="large", reason="needs 80 GB", change="80 GB of free RAM"),
        Passed(id="larger", reason="its licence", change="accept it"),
    ),
)


def wish(source, **keys):
    """A models.toml of one model."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"name": "chat", "source": source, **keys}.items()]
    return config.parse("\n".join(["[[model]]", *lines]))


def lock(wanted, base, *, previous=None, engines=(), choose=never, upgrade=frozenset(), **how):
    return locking.lock(wanted, previous=previous, engines=engines, choose=choose, base=base, upgrade=upgrade, **how)


def variants(wanted, base, **how):
    """format/precision → variant of the one model."""
    return {one.key: one for one in lock(wanted, base, **how).models[0].variants}


def refused(call, *arguments, **keys):
    with pytest.raises(LockError) as caught:
        call(*arguments, **keys)
    assert "`chat`" in caught.value.message
    assert caught.value.hint
    return caught.value


def checkpoint(folder, repo="org/tiny", commit="a" * 40, **files):
    """A repository of a real Hugging Face folder, with what such repositories also hold."""
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    others = {"README.md": b"# Tiny", "pytorch_model.bin": b"pickle", "modeling_x.py": b"import os", "LICENSE": b"MIT"}
    contents |= others | files
    if (row := rows.find(repo)) and "config.json" not in files:
        contents["config.json"] = rows.config(row, contents["config.json"])
    return Repo(repo, commit, contents)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", PINNED)
def test_a_pinned_row_needs_no_network(name, tmp_path):
    row = catalog.find(name)
    model = lock(wish(name), tmp_path).models[0]
    (one,) = model.variants
    (file,) = one.files
    assert (model.requested, model.catalogue, model.reason) == (name, name, None)
    assert (file.path, file.size, file.sha256) == (row.gguf[0].file, row.gguf[0].bytes, row.gguf[0].sha256)
    assert (one.origin.repo, one.origin.commit) == (row.gguf[0].hf_repo, row.gguf[0].revision)
    assert one.facts == row.facts()


def test_a_row_with_wheels_has_two_places(tmp_path):
    one = variants(wish("qwen2.5-coder-0.5b"), tmp_path)["gguf/Q4_K_M"]
    hub_place, index = one.places
    assert hub_place == Place(kind="hub")
    assert (index.kind, index.path, len(index.wheels)) == ("index", one.files[0].path, 6)
    assert sum(wheel.size for wheel in index.wheels) == one.size


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    one = '[[model]]\nname = "a"\nsource = "qwen3-4b"\naliases = {}\n'
    other = '[[model]]\nname = "b"\nsource = "qwen3-8b"\n'
    first = lock(config.parse(one.format('["y", "x"]') + other), tmp_path)
    second = lock(config.parse(other + one.format('["x", "y"]')), tmp_path)
    assert lockfile.write(first) == lockfile.write(second)


def test_what_is_returned_is_what_is_read_again(tmp_path):
    found = lock(wish("qwen3-8b", aliases=["z", "a"]), tmp_path)
    assert lockfile.parse(lockfile.write(found)) == found


def test_engines_are_pinned_by_their_requirements(tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("xllamacpp==1.0 --hash=sha256:0\n")
    engine = StubEngine("llamacpp", "cpu", "gguf")
    engine.requirements = requirements
    (pin,) = lock(wish("qwen3-8b"), tmp_path, engines=(engine,)).engines
    assert (pin.name, pin.device, pin.version) == ("llamacpp", "cpu", "1.0")
    assert pin.requirements == f"sha256:{sha256(requirements.read_bytes())}"


def test_a_row_is_locked_in_both_formats_where_the_hub_answers(tmp_path, serve, folder):
    row = catalog.find("qwen3-0.6b")
    server = serve(checkpoint(folder, row.hf_repo, row.commit))
    found = variants(wish(row.id), tmp_path)
    assert set(found) == {"gguf/Q8_0", "safetensors/bf16"}
    facts = found["safetensors/bf16"].facts
    assert (facts.parameters, facts.vllm_args) == (row.facts().parameters, row.facts().vllm_args)
    # Of the checkpoint that is there, not of the row.
    assert facts.context == tiny.WINDOW
    assert facts.kv_bytes_per_token == row.facts().kv_bytes_per_token
    # Of the weights their header alone.
    weights = [asked for asked in server.requests if asked.path.endswith((".gguf", ".safetensors"))]
    assert [(asked.path.rpartition("/")[2], asked.range) for asked in weights] == [
        ("model.safetensors", "bytes=0-131071")
    ]


def test_without_a_hub_what_is_pinned_is_locked_and_the_rest_is_said(tmp_path, capsys):
    assert set(variants(wish("qwen3-0.6b"), tmp_path)) == {"gguf/Q8_0"}
    said = capsys.readouterr().err
    assert "`chat` is locked as gguf/Q8_0 only, without gguf/Q4_0, safetensors/bf16, safetensors/fp8, " in said
    assert said.count("cannot be reached") == 1
    assert "ownweights lock --upgrade chat" in said


def test_a_second_format_that_cannot_be_locked_is_left_out_and_said(tmp_path, serve, folder, capsys):
    row = catalog.find("qwen3-0.6b")
    serve(checkpoint(folder, row.hf_repo, row.commit, **{"config.json": b"[]"}))
    assert set(variants(wish(row.id), tmp_path)) == {"gguf/Q8_0"}
    said = capsys.readouterr().err
    assert "warning: `chat` is locked as gguf/Q8_0 only, without " in said
    assert "; safetensors/bf16: `config.json` is not" in said


def test_what_was_left_out_is_added_by_an_upgrade(tmp_path, serve, folder):
    row = catalog.find("qwen3-0.6b")
    first = lock(wish(row.id), tmp_path)
    serve(checkpoint(folder, row.hf_repo, row.commit))
    assert lock(wish(row.id), tmp_path, previous=first) == first
    both = lock(wish(row.id), tmp_path, previous=first, upgrade=frozenset({"chat"}))
    assert [one.key for one in both.models[0].variants] == ["gguf/Q8_0", "safetensors/bf16"]


def test_a_row_without_pins_needs_the_hub(tmp_path):
    error = refused(lock, wish("kimi-k2.5"), tmp_path)
    assert "cannot be reached" in error.message
    assert error.where == hub.endpoint()


def test_a_gguf_without_a_pin_is_refused_when_its_bytes_moved(tmp_path, serve, gguf):
    entry = catalog.find("qwen3-32b").gguf[0]
    serve(Repo(entry.hf_repo, "b" * 40, {entry.file: gguf}))
    error = refused(lock, wish("qwen3-32b"), tmp_path)
    assert entry.sha256 in error.message
    assert sha256(gguf.read_bytes()) in error.message
    assert error.hint == f'to accept what is there: source = "hf:{entry.hf_repo}@{"b" * 40}"'


def test_a_gguf_without_a_pin_is_resolved_when_its_bytes_are_known(tmp_path, serve, gguf, capsys):
    row = catalog.find("qwen3-32b")
    known = msgspec.structs.replace(row.gguf[0], sha256=sha256(gguf.read_bytes()))
    serve(Repo(known.hf_repo, "b" * 40, {known.file: gguf}))
    request = Request(wish=ModelWish(name="chat"), base=tmp_path)
    (one,) = listed.of_row(request, msgspec.structs.replace(row, gguf=(known,)), None, resolution.ALL)
    assert (one.origin.commit, one.precision) == ("b" * 40, "Q4_K_M")
    assert (one.facts.context, one.facts.parameters) == (tiny.WINDOW, row.facts().parameters)
    assert one.tensors.count == len(tiny.weights())
    assert "only, without safetensors/bf16: " in capsys.readouterr().err


def test_a_precision_chooses_among_what_the_row_has(tmp_path, serve, folder):
    row = catalog.find("qwen3-0.6b")
    assert set(variants(wish(row.id, precision="q8_0"), tmp_path)) == {"gguf/Q8_0"}
    serve(checkpoint(folder, row.hf_repo, row.commit))
    assert set(variants(wish(row.id, precision="bf16"), tmp_path)) == {"safetensors/bf16"}
    error = refused(lock, wish(row.id, precision="Q5_K_M"), tmp_path)
    assert "Q8_0, Q4_0, bf16, fp8, int8" in error.message


class TestAllOfARow:
    """Every variant that the row names and that can be had."""

    @pytest.fixture
    def row(self):
        return catalog.find("qwen3-8b")

    def quantized(self, folder, repo, **method):
        own = rows.config(catalog.find("qwen3-8b"), (folder / "config.json").read_bytes())
        config = json.loads(own) | {"quantization_config": method}
        return checkpoint(folder, repo, "c" * 40, **{"config.json": json.dumps(config).encode()})

    def served(self, folder, row):
        native, fp8, awq = row.weights
        return (
            checkpoint(folder, native.hf_repo, row.commit),
            self.quantized(folder, fp8.hf_repo, quant_method="fp8"),
            self.quantized(folder, awq.hf_repo, quant_method="awq", bits=4),
        )

    @pytest.fixture(name="served")
    def _served(self, folder, row):
        return self.served(folder, row)

    def of(self, tmp_path, row, **changes):
        request = Request(wish=ModelWish(name="chat"), base=tmp_path)
        found = listed.of_row(request, msgspec.structs.replace(row, **changes), None, resolution.ALL)
        return {one.key: one for one in found}

    def test_is_locked_and_derived_again_to_the_same_bytes(self, tmp_path, serve, folder, row, capsys):
        serve(*self.served(folder, row))
        first = lock(wish(row.id), tmp_path)
        found = {one.key: one.origin.repo for one in first.models[0].variants}
        assert found == {
            "gguf/Q4_K_M": "Qwen/Qwen3-8B-GGUF",
            "safetensors/bf16": "Qwen/Qwen3-8B",
            "safetensors/fp8": "Qwen/Qwen3-8B-FP8",
            "safetensors/int4": "Qwen/Qwen3-8B-AWQ",
        }
        assert not capsys.readouterr().err
        again = lock(wish(row.id), tmp_path, previous=first, at_locked=True)
        assert lockfile.write(again) == lockfile.write(first) == lockfile.write(lock(wish(row.id), tmp_path))

    def test_a_repository_that_is_gone_is_left_out_and_said_once(self, tmp_path, serve, folder, row, capsys):
        native, fp8, _ = self.served(folder, row)
        serve(native, fp8)
        first = lock(wish(row.id), tmp_path)
        assert "safetensors/int4" not in {one.key for one in first.models[0].variants}
        said = capsys.readouterr().err
        assert said.count("warning") == 1
        assert "gguf/Q4_K_M, safetensors/bf16, safetensors/fp8 only, without safetensors/int4: " in said
        serve(*self.served(folder, row))
        assert lock(wish(row.id), tmp_path, previous=first, at_locked=True) == first

    def test_a_precision_narrows_it_to_one(self, tmp_path, serve, folder, row):
        serve(*self.served(folder, row))
        assert set(variants(wish(row.id, precision="FP8"), tmp_path)) == {"safetensors/fp8"}

    def test_one_that_is_something_else_than_was_said_is_left_out(self, tmp_path, serve, folder, row, capsys):
        native, _, awq = self.served(folder, row)
        serve(native, checkpoint(folder, "Qwen/Qwen3-8B-FP8"), awq)
        assert "safetensors/fp8" not in self.of(tmp_path, row)
        assert "`Qwen/Qwen3-8B-FP8` is bf16, the catalogue says fp8" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "method",
        [
            {"quant_method": "modelopt"},
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"0": {"weights": {"type": "float", "num_bits": 4}}},
            },
        ],
    )
    def test_what_a_config_says_by_half_has_the_catalogues_word(self, tmp_path, serve, folder, row, method):
        serve(self.quantized(folder, "nvidia/x", **method))
        nvfp4 = catalog.Weights(hf_repo="nvidia/x", precision="nvfp4", extra_args=("--moe-backend", "x"), source="s")
        found = self.of(tmp_path, row, variant=(nvfp4,))["safetensors/nvfp4"]
        assert found.facts.vllm_args == (*row.facts().vllm_args, "--moe-backend", "x")

    def test_a_hub_that_is_away_is_asked_for_one_only(self, tmp_path, serve, row):
        server = serve()
        server.fault("*", status=503, headers={"Retry-After": "0"})
        with pytest.raises(PlaceError):
            self.of(tmp_path, row, gguf=())
        assert not [asked.path for asked in server.requests if "FP8" in asked.path or "AWQ" in asked.path]

    def test_all_parts_of_a_split_gguf_are_locked_and_its_first_ones_hash_is_compared(self, tmp_path, serve, row, gguf):
        parts = {f"Q4_0/m-Q4_0-0000{number}-of-00002.gguf": gguf for number in (1, 2)}
        serve(Repo("org/split", "a" * 40, parts | {"m-Q8_0.gguf": gguf}))
        known = catalog.Gguf(
            hf_repo="org/split", precision="Q4_0", file=min(parts), sha256=sha256(gguf.read_bytes()), source="s"
        )
        assert not known.pinned
        one = self.of(tmp_path, row, gguf=(known,))["gguf/Q4_0"]
        assert [file.path for file in one.files] == sorted(parts)
        with pytest.raises(LockError, match="is another file now"):
            self.of(tmp_path, row, gguf=(msgspec.structs.replace(known, sha256="0" * 64),))

    def test_a_gguf_without_a_file_name_is_found_by_its_precision(self, tmp_path, serve, row, gguf):
        serve(Repo("org/many", "a" * 40, {"m-UD-Q4_K_XL.gguf": gguf, "m-Q8_0.gguf": gguf}))
        known = catalog.Gguf(hf_repo="org/many", precision="Q4_K_XL", source="s")
        one = self.of(tmp_path, row, gguf=(known,), kv=None, shape=None)["gguf/Q4_K_XL"]
        assert [file.path for file in one.files] == ["m-UD-Q4_K_XL.gguf"]
        with pytest.raises(LockError, match="has layers 2, the model has 36: it is another model"):
            self.of(tmp_path, row, gguf=(known,))

    @pytest.mark.parametrize(
        "case",
        [
            ({"num_hidden_layers": 77}, "has layers 77, the model has 36"),
            ({"hidden_size": 64}, "has hidden width 64, the model has 4096"),
            ({"num_key_value_heads": 2}, "has KV heads 2, the model has 8"),
            ({"architectures": ["LlamaForCausalLM"]}, "is a LlamaForCausalLM, not a Qwen3ForCausalLM"),
        ],
    )
    def test_another_model_under_a_variants_name_is_left_out(self, tmp_path, serve, served, capsys, case):
        (native, fp8, awq), (other, said) = served, case
        fp8.files["config.json"] = json.dumps(json.loads(fp8.files["config.json"]) | other).encode()
        serve(native, fp8, awq)
        assert set(variants(wish("qwen3-8b"), tmp_path)) == {"gguf/Q4_K_M", "safetensors/bf16", "safetensors/int4"}
        assert f"without safetensors/fp8: `Qwen/Qwen3-8B-FP8` {said}" in capsys.readouterr().err

    def test_where_the_row_has_no_dimensions_the_other_variants_say_them(self, tmp_path, serve, folder, row):
        native, fp8, awq = self.served(folder, row)
        fp8.files["config.json"] = json.dumps(json.loads(fp8.files["config.json"]) | {"hidden_size": 64}).encode()
        serve(native, fp8, awq)
        found = self.of(tmp_path, row, kv=None, shape=None, gguf=())
        assert set(found) == {"safetensors/bf16", "safetensors/int4"}

    def test_a_quantized_class_and_its_blocks_may_have_other_names(self, tmp_path, serve, folder, row):
        native, fp8, awq = self.served(folder, row)
        quantized = {
            "architectures": ["Qwen3Fp8ForCausalLM"],
            "quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]},
        }
        fp8.files["config.json"] = json.dumps(json.loads(fp8.files["config.json"]) | quantized).encode()
        serve(native, fp8, awq)
        assert "safetensors/fp8" in self.of(tmp_path, row)

    @pytest.mark.parametrize("failure", ["busy", "unreadable"])
    def test_what_cannot_be_had_now_stays_as_it_was_locked(self, tmp_path, serve, served, capsys, failure):
        server, wanted = serve(*served), wish("qwen3-8b")
        first = lock(wanted, tmp_path)
        if failure == "busy":
            server.fault("*/Qwen3-8B-FP8/*", status=503, headers={"Retry-After": "0"})
        else:
            server.move(Repo(served[1].id, "d" * 40, served[1].files | {"config.json": b"[1"}))
        again = lock(wanted, tmp_path, previous=first, upgrade=frozenset({"chat"}))
        assert lockfile.write(again) == lockfile.write(first)
        said = capsys.readouterr().err
        assert "`chat` keeps what was locked of safetensors/fp8: " in said
        assert "without" not in said
        # To be compared with what is there now, it has to be known.
        error = refused(lock, wanted, tmp_path, previous=first, upgrade=frozenset({"chat"}), comparing=True)
        assert "safetensors/fp8: " in error.message

    def test_what_is_really_gone_is_dropped_by_name(self, tmp_path, serve, folder, row, capsys):
        server = serve(*self.served(folder, row))
        first = lock(wish(row.id), tmp_path)
        del server.revisions["Qwen/Qwen3-8B-FP8"]
        error = refused(lock, wish(row.id), tmp_path, previous=first, at_locked=True)
        assert "safetensors/fp8: `Qwen/Qwen3-8B-FP8` does not exist here" in error.message
        assert error.hint == "ownweights lock --upgrade chat  # drops safetensors/fp8"
        again = lock(wish(row.id), tmp_path, previous=first, upgrade=frozenset({"chat"}))
        assert "safetensors/fp8" not in {one.key for one in again.models[0].variants}
        said = capsys.readouterr().err
        assert "warning: `chat`: safetensors/fp8 of `Qwen/Qwen3-8B-FP8` was locked, and is not any more" in said

    def test_a_row_that_does_not_know_its_type_is_locked_as_what_it_is(self, tmp_path, serve, folder):
        row = catalog.find("qwen3-coder-next")
        serve(checkpoint(folder, row.hf_repo, row.commit))
        first = lock(wish(row.id), tmp_path)
        assert [one.key for one in first.models[0].variants] == ["safetensors/bf16"]
        assert lock(wish(row.id), tmp_path, previous=first, at_locked=True) == first


def test_an_unknown_row_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError) as caught:
        lock(wish("qwen3-7b"), tmp_path)
    assert "`qwen3-8b`" in caught.value.hint


def test_a_repository_of_safetensors(tmp_path, serve, folder):
    serve(checkpoint(folder))
    one = variants(wish("hf:org/tiny"), tmp_path)["safetensors/bf16"]
    assert [file.path for file in one.files] == [
        *("LICENSE", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"),
        "tokenizer_config.json",
    ]
    for file in one.files[1:]:
        content = (folder / file.path).read_bytes()
        assert (file.size, file.sha256) == (len(content), sha256(content))
        assert file.git == (None if file.path.endswith(".safetensors") else hub.git_blob(content))
    assert one.origin == lockfile.Origin(
        kind="huggingface",
        repo="org/tiny",
        repo_id=one.origin.repo_id,
        requested="main",
        commit="a" * 40,
        purl=f"pkg:huggingface/org/tiny@{'a' * 40}",
    )
    assert one.facts.chat_template == sha256(tiny.TEMPLATE.encode())
    assert one.places == (Place(kind="hub"),)


def test_a_small_file_that_was_changed_on_its_way_is_refused(tmp_path, serve, folder):
    serve(checkpoint(folder)).fault("*/config.json", flip=5)
    assert "config.json" in refused(lock, wish("hf:org/tiny"), tmp_path).message


def test_a_repository_of_ggufs_wants_a_precision(tmp_path, serve, gguf):
    server = serve(Repo("org/many", "a" * 40, {"m-Q4_K_M.gguf": gguf, "m-Q8_0.gguf": gguf}))
    error = refused(lock, wish("hf:org/many"), tmp_path)
    assert "m-Q4_K_M.gguf, m-Q8_0.gguf" in error.message
    one = variants(wish("hf:org/many", precision="Q8_0"), tmp_path)["gguf/Q8_0"]
    assert [file.path for file in one.files] == ["m-Q8_0.gguf"]
    assert one.facts.context == tiny.WINDOW
    assert server.requests[-1].path.endswith("/m-Q8_0.gguf")


def test_a_split_gguf_is_one_variant(tmp_path, serve, gguf):
    parts = {f"q/m-Q4_0-0000{number}-of-00002.gguf": gguf for number in (1, 2)}
    serve(Repo("org/split", "a" * 40, parts))
    one = variants(wish("hf:org/split"), tmp_path)["gguf/Q4_0"]
    assert [file.path for file in one.files] == sorted(parts)
    assert one.size == 2 * gguf.stat().st_size


def test_a_repository_with_no_format_is_refused(tmp_path, serve):
    serve(Repo("org/old", "a" * 40, {"config.json": b"{}", "model.onnx": b"onnx"}))
    assert "neither safetensors" in refused(lock, wish("hf:org/old"), tmp_path).message


def test_pickles_are_locked_only_where_the_user_allows_them(tmp_path, serve, folder):
    contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".safetensors"}
    serve(Repo("org/old", "a" * 40, contents | {"pytorch_model.bin": b"pickle", "training_args.bin": b"pickle"}))
    error = refused(lock, wish("hf:org/old"), tmp_path)
    assert "pickles only" in error.message
    assert error.hint.endswith("allow-pickle = true")
    one = variants(wish("hf:org/old", **{"allow-pickle": True}), tmp_path)["pickle/bf16"]
    assert [file.path for file in one.files if file.path.endswith(".bin")] == ["pytorch_model.bin"]
    assert one.tensors is None
    assert one.facts.chat_template == sha256(tiny.TEMPLATE.encode())


def test_pickles_are_not_taken_beside_safetensors_even_where_they_are_allowed(tmp_path, serve, folder):
    serve(checkpoint(folder))
    found = variants(wish("hf:org/tiny", **{"allow-pickle": True}), tmp_path)
    assert set(found) == {"safetensors/bf16"}
    assert "pytorch_model.bin" not in [file.path for file in found["safetensors/bf16"].files]


OWN = {
    "torch_dtype": "bfloat16",
    "architectures": ["OwnForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_x.Own"},
}


def test_code_that_must_be_run_is_refused_with_its_hashes_and_the_line_that_allows_it(tmp_path, serve, folder):
    files = {"config.json": json.dumps(OWN).encode(), "helper.py": b"import re", "sub/other.py": b"1"}
    serve(checkpoint(folder, **files))
    error = refused(lock, wish("hf:org/tiny"), tmp_path)
    hashes = sorted(f"sha256:{sha256(content)}" for content in (b"import os", b"import re"))
    assert "config.json: modeling_x.Own" in error.message
    assert f"modeling_x.py  9 bytes  sha256:{sha256(b'import os')}" in error.message
    assert error.hint.endswith('allow-remote-code = ["' + '", "'.join(hashes) + '"]')
    one = variants(wish("hf:org/tiny", **{"allow-remote-code": hashes}), tmp_path)["safetensors/bf16"]
    assert [file.path for file in one.code] == ["helper.py", "modeling_x.py"]
    assert set(one.code) <= set(one.files)
    error = refused(lock, wish("hf:org/tiny", **{"allow-remote-code": hashes[:1]}), tmp_path)
    assert "must be run" in error.message


def test_code_that_nobody_needs_is_recorded_and_not_fetched(tmp_path, serve, folder):
    own = json.loads((folder / "config.json").read_bytes()) | {"auto_map": OWN["auto_map"]}
    serve(checkpoint(folder, **{"config.json": json.dumps(own).encode()}))
    allowed = {"allow-remote-code": [f"sha256:{sha256(b'import os')}"]}
    for keys in ({}, allowed):
        one = variants(wish("hf:org/tiny", **keys), tmp_path)["safetensors/bf16"]
        (code,) = one.code
        assert (code.path, code.size, code.sha256) == ("modeling_x.py", 9, sha256(b"import os"))
        assert code.git == hub.git_blob(b"import os")
        assert code not in one.files


def test_an_allowed_hash_that_is_gone_is_said(tmp_path, serve, folder, capsys):
    serve(checkpoint(folder))
    variants(wish("hf:org/tiny", **{"allow-remote-code": ["sha256:" + "0" * 64]}), tmp_path)
    assert f"sha256:{'0' * 64}: no file" in capsys.readouterr().err


def test_tensors_are_counted_by_type(tmp_path, serve, folder, gguf):
    serve(checkpoint(folder, **{"tiny-F16.gguf": gguf}))
    found = variants(wish("hf:org/tiny"), tmp_path)
    count = sum(values.size for values in tiny.weights().values())
    vectors = sum(values.size for values in tiny.weights().values() if values.ndim == 1)
    assert found["safetensors/bf16"].tensors.elements == {"BF16": count}
    assert found["gguf/F16"].tensors.elements == {"F16": count - vectors, "F32": vectors}
    assert {one.tensors.count for one in found.values()} == {len(tiny.weights())}
    assert {one.facts.parameters for one in found.values()} == {count}


def test_a_repository_of_one_gguf_and_safetensors_is_locked_in_both(tmp_path, serve, folder, gguf, capsys):
    serve(checkpoint(folder, **{"tiny-F16.gguf": gguf}))
    assert set(variants(wish("hf:org/tiny"), tmp_path)) == {"safetensors/bf16", "gguf/F16"}
    assert "template" not in capsys.readouterr().err


def test_of_several_ggufs_beside_safetensors_none_is_locked_and_the_choice_is_said(
    tmp_path, serve, folder, gguf, capsys
):
    serve(checkpoint(folder, **{"tiny-F16.gguf": gguf, "tiny-Q8_0.gguf": gguf}))
    assert set(variants(wish("hf:org/tiny"), tmp_path)) == {"safetensors/bf16"}
    said = capsys.readouterr().err
    assert "several: F16, Q8_0" in said
    assert 'precision = "F16"' in said


def test_two_formats_with_different_templates_are_said(tmp_path, serve, folder, gguf, capsys):
    serve(checkpoint(folder, **{"tiny-F16.gguf": gguf, "chat_template.jinja": b"{{ other }}"}))
    variants(wish("hf:org/tiny"), tmp_path)
    assert "gguf/F16 carry different chat templates" in capsys.readouterr().err


def test_a_precision_says_which_format_of_a_repository_that_has_both(tmp_path, serve, folder, gguf):
    serve(checkpoint(folder, **{"tiny-F16.gguf": gguf}))
    assert set(variants(wish("hf:org/tiny", precision="F16"), tmp_path)) == {"gguf/F16"}
    assert set(variants(wish("hf:org/tiny", precision="bf16"), tmp_path)) == {"safetensors/bf16"}


def test_another_precision_than_the_repository_has_is_refused(tmp_path, serve, folder):
    serve(checkpoint(folder))
    assert "is bf16, not fp8" in refused(lock, wish("hf:org/tiny", precision="fp8"), tmp_path).message


def test_a_gguf_on_this_disk(gguf, tmp_path):
    one = variants(wish(f"file:{gguf.name}"), gguf.parent)["gguf/F16"]
    (file,) = one.files
    assert (file.path, file.size, file.sha256) == (gguf.name, gguf.stat().st_size, sha256(gguf.read_bytes()))
    assert (one.origin.kind, one.origin.repo) == ("path", None)
    assert one.places == (Place(kind="file", path=str(gguf.parent)),)
    assert variants(wish(f"file:{gguf}"), tmp_path)["gguf/F16"] == one


def test_a_folder_on_this_disk(folder, tmp_path):
    one = variants(wish(f"file:{folder}"), tmp_path)["safetensors/bf16"]
    assert {file.path: file.sha256 for file in one.files} == {
        path.name: sha256(path.read_bytes()) for path in folder.iterdir()
    }


def test_a_path_that_is_no_model_is_refused(tmp_path, gguf):
    assert "does not exist" in refused(lock, wish("file:no/such.gguf"), tmp_path).message
    (tmp_path / "notes.txt").write_text("x")
    assert "neither a folder nor a .gguf" in refused(lock, wish("file:notes.txt"), tmp_path).message
    (tmp_path / "empty").mkdir()
    assert "neither safetensors" in refused(lock, wish("file:empty"), tmp_path).message
    (tmp_path / "cut.gguf").write_bytes(gguf.read_bytes()[:500])
    assert "cut off" in refused(lock, wish("file:cut.gguf"), tmp_path).message


def test_a_path_that_can_be_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such user"):
        lock(wish("file:~nobody-of-this-name/x.gguf"), tmp_path)
    os.mkfifo(tmp_path / "pipe.gguf")
    assert "neither a folder nor a .gguf" in refused(lock, wish("file:pipe.gguf"), tmp_path).message


def test_a_file_whose_name_cannot_be_locked_is_named(tmp_path, folder):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "a\nb.json").write_text("{}")
    error = refused(lock, wish("file:copy"), tmp_path)
    assert "'a\\nb.json' cannot be the name" in error.message
    assert "damaged" not in error.message


def test_what_was_found_and_cannot_be_read_again_is_not_called_a_damaged_lock(tmp_path, folder):
    copy = tmp_path / "a\x1bb"
    shutil.copytree(folder, copy)
    with pytest.raises(LockError, match=r"what was found cannot be locked: .* holds a control character") as caught:
        lock(wish("file:."), copy)
    assert "damaged" not in caught.value.message
    assert "version control" not in caught.value.hint


def test_auto_is_chosen_once_with_its_reason(tmp_path):
    first = lock(wish("auto"), tmp_path, choose=lambda _: CHOSEN)
    model = first.models[0]
    assert (model.requested, model.catalogue, model.reason) == ("auto", "qwen3-4b", "it fits")
    assert lock(wish("auto"), tmp_path, previous=first) == first
    grown = Chosen(id="qwen3-8b", reason="it grew")
    upgraded = lock(wish("auto"), tmp_path, previous=first, choose=lambda _: grown, upgrade=frozenset({"chat"}))
    (model,) = upgraded.models
    assert (model.catalogue, model.reason, model.preferred, model.passed) == ("qwen3-8b", "it grew", None, ())


def test_what_auto_weighed_and_passed_over_stays_in_the_lock(tmp_path):
    """In its order, and until it is chosen again."""
    first = lock(wish("auto"), tmp_path, choose=lambda _: CHOSEN)
    (model,) = lockfile.parse(lockfile.write(first)).models
    assert (model.preferred, model.passed) == ("gguf/Q4_K_M", CHOSEN.passed)
    assert locking.kept(model) == CHOSEN
    (renamed,) = lock(wish("auto", aliases=["gpt"]), tmp_path, previous=first).models
    assert (renamed.preferred, renamed.passed) == (model.preferred, model.passed)


def test_what_was_named_by_the_user_was_not_weighed(tmp_path):
    (model,) = lock(wish("qwen3-4b"), tmp_path).models
    assert (model.reason, model.preferred, model.passed) == (None, None, ())


def test_a_model_that_did_not_change_is_kept_without_asking(tmp_path, serve, folder):
    serve(checkpoint(folder))
    first = lock(wish("hf:org/tiny"), tmp_path)
    server = serve(checkpoint(folder, commit="b" * 40))
    kept = lock(wish("hf:org/tiny", aliases=["tiny"]), tmp_path, previous=first)
    assert kept.models[0].variants == first.models[0].variants
    assert kept.models[0].aliases == ("tiny",)
    assert not server.requests
    moved = lock(wish("hf:org/tiny"), tmp_path, previous=first, upgrade=frozenset({"chat"}))
    assert moved.models[0].variants[0].origin.commit == "b" * 40


def test_another_source_or_precision_is_resolved_anew(tmp_path, serve, gguf):
    serve(Repo("org/many", "a" * 40, {"m-Q4_K_M.gguf": gguf, "m-Q8_0.gguf": gguf}))
    first = lock(wish("hf:org/many", precision="Q8_0"), tmp_path)
    second = lock(wish("hf:org/many", precision="Q4_K_M"), tmp_path, previous=first)
    assert second.models[0].variants[0].precision == "Q4_K_M"
    assert lock(wish("qwen3-4b"), tmp_path, previous=second).models[0].catalogue == "qwen3-4b"


def test_a_model_that_is_no_longer_wished_for_leaves_the_lock(tmp_path):
    first = lock(wish("qwen3-4b"), tmp_path)
    second = lock(wish("qwen3-8b", name="other"), tmp_path, previous=first)
    assert [model.name for model in second.models] == ["other"]


def test_a_repository_under_an_old_name_with_a_new_owner_stops_the_upgrade(tmp_path, serve, folder):
    serve(checkpoint(folder))
    first = lock(wish("hf:org/tiny"), tmp_path)
    taken = checkpoint(folder)
    taken.object_id = "f" * 24
    serve(taken)
    with pytest.raises(LockError, match="new owner") as caught:
        lock(wish("hf:org/tiny"), tmp_path, previous=first, upgrade=frozenset({"chat"}))
    assert "f" * 24 in caught.value.message
    assert first.models[0].variants[0].origin.repo_id in caught.value.message
    assert caught.value.hint.endswith("ownweights lock --upgrade chat --accept-new-owner")


def test_a_new_owner_is_accepted_aloud(tmp_path, serve, folder, capsys):
    serve(checkpoint(folder))
    first = lock(wish("hf:org/tiny"), tmp_path)
    taken = checkpoint(folder)
    taken.object_id = "f" * 24
    serve(taken)
    second = lock(wish("hf:org/tiny"), tmp_path, previous=first, upgrade=frozenset({"chat"}), accept_new_owner=True)
    assert second.models[0].variants[0].origin.repo_id == "f" * 24
    assert "warning: `org/tiny` is not the repository that was locked" in capsys.readouterr().err


class TestGgufOfItsOwn:
    """``gguf``: the GGUF variant comes from elsewhere, the rest from ``source``."""

    def test_from_another_repository(self, tmp_path, serve, folder, gguf):
        serve(checkpoint(folder, **{"own-Q8_0.gguf": gguf}), Repo("org/tiny-GGUF", "b" * 40, {"t-F16.gguf": gguf}))
        found = variants(wish("hf:org/tiny", gguf="hf:org/tiny-GGUF"), tmp_path)
        assert {key: one.origin.repo for key, one in found.items()} == {
            "safetensors/bf16": "org/tiny",
            "gguf/F16": "org/tiny-GGUF",
        }

    def test_from_this_disk_for_a_row_of_the_catalogue(self, tmp_path, serve, folder, gguf):
        row = catalog.find("qwen3-0.6b")
        serve(checkpoint(folder, row.hf_repo, row.commit))
        found = variants(wish(row.id, gguf=f"file:{gguf}"), tmp_path)
        assert set(found) == {"safetensors/bf16", "gguf/F16"}
        assert found["gguf/F16"].facts.parameters == row.facts().parameters

    def test_a_precision_picks_there_unless_it_is_that_of_the_rest(self, tmp_path, serve, folder, gguf):
        many = Repo("org/many", "b" * 40, {"t-Q4_K_M.gguf": gguf, "t-Q8_0.gguf": gguf})
        serve(checkpoint(folder), many)
        keys = {"gguf": "hf:org/many"}
        assert set(variants(wish("hf:org/tiny", precision="Q8_0", **keys), tmp_path)) == {
            *("safetensors/bf16", "gguf/Q8_0"),
        }
        assert set(variants(wish("hf:org/tiny", precision="bf16", **keys), tmp_path)) == {"safetensors/bf16"}
        assert "t-Q4_K_M.gguf, t-Q8_0.gguf" in refused(lock, wish("hf:org/tiny", **keys), tmp_path).message

    def test_it_belongs_to_a_source_that_is_no_gguf_itself(self, tmp_path, gguf):
        error = refused(lock, wish(f"file:{gguf}", gguf=f"file:{gguf}"), tmp_path)
        assert "GGUF files only" in error.message

    @pytest.mark.parametrize(("source", "other"), [("auto", "hf:org/x"), ("SELF", "qwen3-8b"), ("SELF", "auto")])
    def test_what_can_be_none_is_refused(self, tmp_path, folder, source, other):
        with pytest.raises(ConfigError, match="`chat`"):
            lock(wish(source.replace("SELF", f"file:{folder}"), gguf=other), tmp_path)


class TestLicence:
    def of(self, tmp_path, **how):
        return variants(wish("hf:org/tiny", **how), tmp_path)["safetensors/bf16"].licence

    def test_the_tag_and_the_text(self, tmp_path, serve, folder):
        serve(checkpoint(folder, **{"NOTICE": b"note", "LICENSE-CODE": b"code"}))
        assert self.of(tmp_path) == Licence(id="Apache-2.0", file="LICENSE", text=sha256(b"MIT"), gated=False)

    def test_a_text_without_a_tag_has_the_name_of_its_repository(self, tmp_path, serve, folder):
        repo = checkpoint(folder)
        repo.license = None
        serve(repo)
        assert self.of(tmp_path).id == "LicenseRef-org-tiny"

    def test_neither_tag_nor_text_is_not_known(self, tmp_path, serve, folder):
        repo = checkpoint(folder)
        repo.license = None
        del repo.files["LICENSE"]
        serve(repo)
        assert self.of(tmp_path) is None

    def test_a_gguf_carries_the_texts_too(self, tmp_path, serve, gguf):
        texts = {"LICENSE": b"MIT", "NOTICE.txt": b"note", "README.md": b"# T"}
        serve(Repo("org/g", "a" * 40, {"t-F16.gguf": gguf, **texts}))
        one = variants(wish("hf:org/g"), tmp_path)["gguf/F16"]
        assert [file.path for file in one.files] == ["LICENSE", "NOTICE.txt", "t-F16.gguf"]
        assert (one.licence.file, one.licence.text) == ("LICENSE", sha256(b"MIT"))

    def test_the_catalogue_names_what_has_no_common_name(self, tmp_path, serve, folder):
        row = catalog.find("qwen3-0.6b")
        repo = checkpoint(folder, row.hf_repo, row.commit)
        repo.license = "other"
        serve(repo)
        found = variants(wish(row.id), tmp_path)
        assert {one.licence.id for one in found.values()} == {"Apache-2.0"}

    def test_a_folder_of_this_disk_says_nothing(self, folder, tmp_path):
        assert variants(wish(f"file:{folder}"), tmp_path)["safetensors/bf16"].licence is None


class TestAtLocked:
    """What ``lock --check`` does: derive the same again, at the locked commits."""

    def again(self, wanted, base, previous):
        return lockfile.write(lock(wanted, base, previous=previous, at_locked=True))

    def test_a_repository_that_moved_on_is_derived_as_it_was(self, tmp_path, serve, folder, gguf):
        serve(checkpoint(folder, **{"tiny-F16.gguf": gguf}))
        first = lock(wish("hf:org/tiny"), tmp_path)
        old, new = checkpoint(folder, **{"tiny-F16.gguf": gguf}), checkpoint(folder, commit="b" * 40)
        serve(old, new)
        assert lock(wish("hf:org/tiny"), tmp_path).models[0].variants[0].origin.commit == "b" * 40
        assert self.again(wish("hf:org/tiny"), tmp_path, first) == lockfile.write(first)

    def test_a_tampered_hash_comes_out_as_it_should_be(self, tmp_path, serve, folder):
        serve(checkpoint(folder))
        first = lock(wish("hf:org/tiny"), tmp_path)
        text = lockfile.write(first)
        (variant,) = first.models[0].variants
        files = (msgspec.structs.replace(variant.files[0], sha256="0" * 64), *variant.files[1:])
        forged = msgspec.structs.replace(variant, files=files, tree=soundness.tree_digest(files))
        model = msgspec.structs.replace(first.models[0], variants=(forged,))
        assert self.again(wish("hf:org/tiny"), tmp_path, msgspec.structs.replace(first, models=(model,))) == text

    def test_auto_stays_what_it_was(self, tmp_path):
        first = lock(wish("auto"), tmp_path, choose=lambda _: CHOSEN)
        assert self.again(wish("auto"), tmp_path, first) == lockfile.write(first)

    def test_a_row_that_was_locked_without_a_hub_needs_none(self, tmp_path, serve, folder):
        row = catalog.find("qwen3-0.6b")
        first = lock(wish(row.id), tmp_path)
        server = serve(checkpoint(folder, row.hf_repo, row.commit))
        assert self.again(wish(row.id), tmp_path, first) == lockfile.write(first)
        assert not server.requests

    def test_a_row_that_was_locked_in_both_formats_needs_the_hub(self, tmp_path, serve, folder, monkeypatch):
        row = catalog.find("qwen3-0.6b")
        server = serve(checkpoint(folder, row.hf_repo, row.commit))
        first = lock(wish(row.id), tmp_path)
        assert self.again(wish(row.id), tmp_path, first) == lockfile.write(first)
        server.fault("/api/*", status=404)
        refused(lock, wish(row.id), tmp_path, previous=first, at_locked=True)


def test_an_upgrade_of_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(LockError, match="no model `x`") as caught:
        lock(wish("qwen3-4b"), tmp_path, upgrade=frozenset({"x"}))
    assert "chat" in caught.value.hint
