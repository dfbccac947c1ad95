"""The gateway as a background process: start it, wait for it, find it again, end it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import msgspec

from deploy import atomic, output, paths, ports
from deploy.errors import EngineError, UserError
from deploy.prepare import Deployment
from serving import identity, keys
from serving.client import Client
from serving.identity import Identity

GRACE_S = 10.0
"""How long `down` lets running answers finish before it ends the gateway."""
BIND_S = 20.0
SPARE_S = 10.0
"""On top, for the engines to end after the gateway has drained."""
POLL_S = 0.05


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The running gateway, as it wrote itself down after binding its port."""

    process: Identity
    host: str
    port: int
    inputs: str
    project: str
    since: int

    @property
    def base_url(self) -> str:
        host = f"[{self._reachable}]" if ":" in self._reachable else self._reachable
        return f"http://{host}:{self.port}/v1"

    @property
    def _reachable(self) -> str:
        """One that listens everywhere is asked on loopback."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)

    def client(self, *, key: str) -> Client:
        return Client(self._reachable, self.port, key)


def running() -> Service | None:
    """The gateway that is alive now, told by pid and start time."""
    try:
        service = msgspec.json.decode(paths.service_file().read_bytes(), type=Service)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    return service if service.process.alive else None


def need() -> Service:
    """The same, or UserError."""
    service = running()
    if service is None:
        raise UserError("nothing is running", hint="make deploy")
    return service


def record(deployment: Deployment, pid: int) -> None:
    """Called by the gateway itself once its port is bound."""
    process = identity.of(pid)
    if process is None:
        raise EngineError("cannot read the gateway's own start time", where=f"/proc/{pid}/stat")
    service = Service(
        process=process,
        host=deployment.host,
        port=deployment.port,
        inputs=deployment.inputs,
        project=deployment.project,
        since=int(time.time()),
    )
    atomic.write(paths.service_file(), msgspec.json.encode(service), mode=0o600)


def start(deployment: Deployment) -> Service:
    """Start `serve` in the background and wait until every model answers.

    Raises UserError where the port is taken, EngineError where a model fails; then nothing is left running.
    """
    if not ports.free(deployment.host, deployment.port):
        raise port_taken(deployment.host, deployment.port)
    log = gateway_log()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        child = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "serve", "--prepared"],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=paths.state_dir(),
        )
    try:
        service = _bound(child, log)
        wait(service, deployment)
    except BaseException:
        # Ctrl-C included: what this call started and could not finish does not stay.
        _end(child)
        raise
    return service


def wait(service: Service, deployment: Deployment) -> None:
    """Until every model answers, telling each change of state. Raises EngineError when one has failed."""
    limit_s = sum(model.start_timeout_s for model in deployment.plan.models)
    deadline = time.monotonic() + limit_s
    said: dict[str, str] = {}
    client = service.client(key=keys.operator_key(paths.key_file()))
    while time.monotonic() < deadline:
        if not service.process.alive:
            raise EngineError("the gateway has ended", where=str(gateway_log()), hint="ownweights logs")
        _, board = client.get("/status")
        for model in board["models"]:
            if model["state"] == "failed":
                hint = f"ownweights logs {model['id']}"
                raise EngineError(f"model `{model['id']}` did not start: {model['detail']}", hint=hint)
            if said.get(model["id"], "ready") != model["state"]:
                output.say(f"{model['id']}: {model['state']}")
            said[model["id"]] = model["state"]
        if board["ready"]:
            return
        time.sleep(POLL_S)
    raise EngineError(f"not ready within {limit_s:.0f} s", where=str(gateway_log()), hint="ownweights logs")


def gateway_log() -> Path:
    return paths.logs_dir() / "gateway.log"


def stop(*, grace_s: float = GRACE_S) -> Service | None:
    """End the gateway; it drains and ends its engines. None when nothing was running."""
    service = running()
    if service is not None and not identity.end(service.process, grace_s=grace_s + SPARE_S):
        raise EngineError("the gateway does not end", where=f"pid {service.process.pid}")
    paths.service_file().unlink(missing_ok=True)
    return service


def port_taken(host: str, port: int) -> UserError:
    """Who holds it, where that can be seen."""
    by = f" by {holder}" if (holder := ports.holder(host, port)) else ""
    return UserError(
        f"port {port} is in use{by}",
        where=f"{host}:{port}",
        hint="stop that program, or set another port: [server] port = 8001 in models.toml",
    )


def _bound(child: subprocess.Popen[bytes], log: Path) -> Service:
    deadline = time.monotonic() + BIND_S
    while time.monotonic() < deadline:
        service = running()
        if service is not None and service.process.pid == child.pid:
            return service
        if child.poll() is not None:
            raise _died(child, log)
        time.sleep(0.02)
    raise EngineError(
        f"the gateway did not open its port within {BIND_S:.0f} s", where=str(log), hint="ownweights logs"
    )


def _died(child: subprocess.Popen[bytes], log: Path) -> EngineError:
    tail = log.read_text(errors="replace").strip().splitlines()[-3:]
    return EngineError(f"the gateway ended with exit code {child.returncode}: {' / '.join(tail)}", where=str(log))


def _end(child: subprocess.Popen[bytes]) -> None:
    if (process := identity.of(child.pid)) is not None:
        identity.end(process, grace_s=GRACE_S)
    child.wait()
    paths.service_file().unlink(missing_ok=True)
