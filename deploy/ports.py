"""Whether an address can be listened on, and who listens there now."""

from __future__ import annotations

import errno
import socket

import msgspec
import psutil

from deploy.errors import UserError

ANY = ("0.0.0.0", "::")


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """A process that listens. ``name`` is the program's, as the kernel has it."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.name})"


def free(host: str, port: int) -> bool:
    """Tried by binding, as the server will. False: someone has it.

    Raises UserError where no waiting would help: a host that is not this machine's, a port that needs root.
    """
    return all(_binds(family, address, host, port) for family, address in _addresses(host, port))


def holder(host: str, port: int) -> str | None:
    """``pid 123 (nginx)``; None when nobody listens, or when it is another user's process."""
    found = listener(host, port)
    return None if found is None else str(found)


def listener(host: str, port: int) -> Listener | None:
    """The same as a noun. Only processes whose open files we may read can be found."""
    wanted = {address[0] for _, address in _addresses(host, port)}
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:  # macOS tells root only
        return None
    for connection in connections:
        local = connection.laddr
        if not local or local.port != port or connection.status != psutil.CONN_LISTEN or not connection.pid:
            continue
        if local.ip in wanted or local.ip in ANY or wanted.intersection(ANY):
            try:
                return Listener(pid=connection.pid, name=psutil.Process(connection.pid).name())
            except psutil.NoSuchProcess:
                continue
    return None


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise UserError(
            f"the host `{host}` cannot be resolved: {error}",
            where=f"{host}:{port}",
            hint='set [server] host = "127.0.0.1" in models.toml',
        ) from error
    return [(family, (str(address[0]), port)) for family, _, _, _, address in found]


def _binds(family: socket.AddressFamily, address: tuple[str, int], host: str, port: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port that only lingers in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Else `::` would claim the IPv4 port too, which may be bound for itself.
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise _impossible(error, host, port) from error
    return True


def _impossible(error: OSError, host: str, port: int) -> UserError:
    where = f"{host}:{port}"
    if error.errno == errno.EACCES:
        return UserError(
            f"port {port} may not be opened without root's rights",
            where=where,
            hint="set [server] port = 8000 in models.toml, or any other from 1024 on",
        )
    return UserError(
        f"cannot listen: {error.strerror}",
        where=where,
        hint='set [server] host = "127.0.0.1" in models.toml: it must be an address of this machine',
    )
