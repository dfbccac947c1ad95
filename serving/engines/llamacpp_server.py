"""llama.cpp's HTTP server on a unix socket, until the process is ended.

Copied into the engine's own environment and run there: this file is the only one that imports xllamacpp,
and it imports nothing of ours.
"""

from __future__ import annotations

import argparse
import ctypes
import threading
from pathlib import Path

START_VERBOSITY, VERBOSITY = 4, 3
"""With the sizes of its buffers while it starts; then its default, which is half as long per request."""
CHECKPOINTS = 2
"""Per slot: the default of 32 is gigabytes for a model with recurrent layers."""


def main() -> None:
    options = _options()
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.name}
    params.hostnames = [options.socket]
    # One context for all slots together, split evenly.
    params.n_ctx = options.context * options.slots
    params.n_parallel = options.slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    # What is asked for is what runs, or the start fails: nothing is shrunk to fit, nothing cut from a prompt.
    params.fit_params = False
    params.ctx_shift = False
    # Mapped, every tensor that is laid out anew for the CPU would be held twice.
    params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    params.n_ctx_checkpoints = CHECKPOINTS
    # Both caches can give one request another one's state.
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    # /slots shows prompts.
    params.endpoint_slots = False
    params.endpoint_metrics = True
    params.ui = False
    params.offline = True
    params.verbosity = START_VERBOSITY

    # The socket of a predecessor that was killed; binding refuses while it is there.
    Path(options.socket).unlink(missing_ok=True)
    server = xllamacpp.Server(params)
    # Only the C++ library has a way to change it once a server is there.
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    ctypes.c_int.in_dll(library, "common_log_verbosity_thold").value = VERBOSITY
    print(f"listening on {server.listening_address}", flush=True)
    # SIGTERM keeps its default, which is the fastest end there is: nothing here needs to be saved.
    threading.Event().wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--name", required=True, help="what answers call the model")
    parser.add_argument("--socket", required=True, help="path of the unix socket")
    parser.add_argument("--context", type=int, required=True, help="tokens of one request")
    parser.add_argument("--slots", type=int, required=True, help="requests served at once")
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
