"""Server-sent events out of bytes as they arrive, wherever the network cut them.

Source: the HTML standard's event stream grammar. Only ``data`` matters here; comments, event names, ids and
retry times are skipped. A line ends with LF or CRLF: no server is known that sends a lone CR.
"""

from __future__ import annotations


class Events:
    """Feed it packets, get the payloads of the events that are now complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, packet: bytes) -> list[bytes]:
        """Payloads in order. An event's ``data`` lines are joined by LF; an event without data is none."""
        *lines, self._rest = (self._rest + packet).split(b"\n")
        found = []
        for line in lines:
            field = line.removesuffix(b"\r")
            if field.startswith(b"data:"):
                self._data.append(field[5:].removeprefix(b" "))
            elif not field and self._data:
                found.append(b"\n".join(self._data))
                self._data.clear()
        return found
