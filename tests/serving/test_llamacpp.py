from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from deploy.engine import Figures, Settings, Split
from deploy.hardware import Disk
from serving.engines.llamacpp import SERVER, LlamaCpp
from tests.serving.engine_cases import GB, ISA, box, gpu, launch, option, variant

ENGINE = LlamaCpp()
GGUF = variant("gguf", size=GB)
SETTINGS = Settings(context_tokens=4096, slots=8, threads=2)


def test_the_command_says_what_the_plan_says() -> None:
    command = ENGINE.command(launch(GGUF, SETTINGS))
    assert command.argv[:2] == ("/environment/bin/python", f"/environment/{SERVER}")
    assert option(command.argv, "--model") == "/weights"
    assert option(command.argv, "--socket") == "/run/e.sock"
    assert option(command.argv, "--context") == "4096"
    assert option(command.argv, "--slots") == "8"
    assert option(command.argv, "--threads") == "2"
    # Several would make it answer as the alphabetically first of them, whichever was asked for.
    assert option(command.argv, "--name") == "chat"
    assert command.env["PYTHONSAFEPATH"] == "1"


@pytest.mark.parametrize(
    ("weights", "hardware", "reason"),
    [
        (variant("safetensors"), box(), "llama.cpp reads no safetensors"),
        (GGUF, box(platform="darwin-arm64"), "no build for darwin-arm64"),
        (GGUF, box(isa=("avx", "sse4_2")), "the CPU lacks avx2, bmi2, f16c, fma"),
        (GGUF, box(isa=("avx2", "fma", "f16c")), "the CPU lacks bmi2"),
    ],
)
def test_what_it_cannot_run_is_refused_with_what_would_change_that(weights, hardware, reason) -> None:
    refusal = ENGINE.refuse(weights, hardware)
    assert refusal
    assert reason in refusal.reason
    assert refusal.change


@pytest.mark.parametrize(
    "hardware",
    [box(), box(isa=(*ISA, "avx512f")), box(isa=()), box(gpu()), box(platform="linux-aarch64", isa=("asimd",))],
)
def test_what_it_can_run_or_what_is_not_known_is_not_refused(hardware) -> None:
    assert ENGINE.refuse(GGUF, hardware) is None


def test_larger_weights_and_slower_disks_need_more_time() -> None:
    def seconds(size: int, rotational: bool | None) -> float:
        hardware = msgspec.structs.replace(box(), disk=Disk(rotational=rotational))
        return ENGINE.start_timeout_s(variant("gguf", size=size), hardware)

    assert seconds(GB, rotational=False) == 65.0
    assert seconds(GB, rotational=True) == seconds(GB, rotational=None) == 80.0
    assert seconds(10 * GB, rotational=False) == 110.0


def test_there_is_one_way_to_spread_a_model() -> None:
    assert ENGINE.splits(GGUF, (), ()) == (Split(),)


# Lines of version 2026.10.11549, of two starts: one with repacked weights, one with a second cache (sliding windows).
STARTED = """\
0.00.003.535 I srv    load_model: loading model '/w/x.gguf'
0.00.770.653 I load_tensors:          CPU model buffer size =   434.91 MiB
0.00.770.667 I load_tensors:   CPU_REPACK model buffer size =    28.05 MiB
0.00.837.681 I llama_context:        CPU  output buffer size =     0.58 MiB
0.00.837.775 I llama_kv_cache:        CPU KV buffer size =    96.00 MiB
0.00.837.799 I llama_kv_cache:        CPU KV buffer size =     5.00 MiB
0.00.889.509 I llama_kv_cache: size =   96.00 MiB (  8192 cells,  24 layers,  1/1 seqs), K (f16):   48.00 MiB
0.00.892.056 I sched_reserve:        CPU compute buffer size =    45.27 MiB
0.01.115.852 I srv    load_model: initializing, n_slots = 2, n_ctx_slot = 4096, kv_unified = 'false'
"""


def test_the_log_of_a_start_tells_sizes() -> None:
    figures = Figures(kv_tokens=8192, kv_bytes=101 << 20, weights_bytes=round(462.96 * (1 << 20)))
    assert ENGINE.figures(STARTED) == figures
    # A second start in the same log counts alone.
    assert ENGINE.figures(STARTED.replace("96.00", "11.00") + STARTED) == figures


def test_a_log_without_sizes_tells_none() -> None:
    assert ENGINE.figures("0.00.003.535 I srv    load_model: loading model '/w/x.gguf'\n") == Figures()
    assert ENGINE.figures("") == Figures()


HOSTILE = (
    "CPU KV buffer size = 1.2.3 MiB",
    f"CPU model buffer size = {'9' * 400} MiB",
    f"CPU model buffer size = {'9' * 400}.5 MiB",
    f"n_slots = {'9' * 5000}, n_ctx_slot = 4096",
    f"n_slots = 2, n_ctx_slot = {'9' * 5000}",
)


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_size_of_a_box_is_not_read(line: str) -> None:
    assert ENGINE.figures(f"{line}\n") == Figures()


# Printed by version 2026.10.11549 for: no such file, random bytes, a file cut short, another architecture, a limit
# on memory, a folder that is not there.
FAILURES = {
    "E gguf_init_from_file: failed to open GGUF file '/w/x.gguf' (No such file or directory)": "opened: /w/x.gguf",
    "E gguf_init_from_reader: invalid magic characters: '?.??', expected 'GGUF'": "damaged",
    "E llama_model_load: error loading model: tensor 'output.weight' data is not within the file bounds, "
    "model is corrupted or incomplete": "damaged",
    "E llama_model_load: error loading model: unknown model architecture: 'qwenZ'": "architecture qwenZ",
    "E ggml_aligned_malloc: insufficient memory (attempted to allocate 768.00 MB)": "not enough memory",
    "E srv         start: couldn't bind HTTP server socket, hostname: /nowhere/e.sock, port: 0": "socket",
    "ModuleNotFoundError: No module named 'xllamacpp'": "environment is damaged",
}


@pytest.mark.parametrize(("line", "cause"), FAILURES.items())
def test_its_failures_are_understood(line: str, cause: str) -> None:
    log = f"0.00.001 I srv init: loading model\n{line}\n0.00.004 E srv init: exiting due to model loading error\n"
    diagnosis = ENGINE.diagnose(log)
    assert diagnosis
    assert cause in diagnosis.cause
    assert diagnosis.evidence == line
    assert diagnosis.hint
    assert diagnosis.context_tokens is None


def test_a_log_without_a_known_failure_is_not_guessed_at() -> None:
    assert ENGINE.diagnose("0.01.221.117 I srv          init: model loaded\n") is None
    assert ENGINE.diagnose("") is None


STAND_IN = """\
import json, os
class Nested: pass
class llama_load_mode:
    LLAMA_LOAD_MODE_NONE = "none"
class CommonParams(Nested):
    def __init__(self):
        self.model, self.cpuparams, self.cpuparams_batch = Nested(), Nested(), Nested()
class Server:
    def __init__(self, params):
        values = vars(params) | {"model_alias": sorted(params.model_alias)}
        print(json.dumps(values, default=vars), flush=True)
        os._exit(0)
"""


def test_the_server_hands_everything_on(tmp_path: Path) -> None:
    """In place of xllamacpp a module that prints what it was given; the real one is the conformance suite's."""
    (tmp_path / "xllamacpp.py").write_text(STAND_IN)
    server = tmp_path / "server.py"
    server.write_text(ENGINE.files[SERVER])
    stale = tmp_path / "e.sock"
    stale.touch()
    arguments = ENGINE.command(launch(GGUF, SETTINGS)).argv[2:]
    arguments = tuple(str(stale) if value == "/run/e.sock" else value for value in arguments)
    given = json.loads(
        subprocess.check_output(
            [sys.executable, server, *arguments], env={"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
        )
    )
    assert given["model"] == {"path": "/weights"}
    assert given["model_alias"] == ["chat"]
    assert given["hostnames"] == [str(stale)]
    assert (given["n_ctx"], given["n_parallel"]) == (32768, 8)
    assert given["cpuparams"] == given["cpuparams_batch"] == {"n_threads": 2}
    assert (given["fit_params"], given["ctx_shift"], given["endpoint_slots"]) == (False, False, False)
    assert (given["load_mode"], given["n_ctx_checkpoints"], given["verbosity"]) == ("none", 2, 4)
    assert not stale.exists()
