"""The commands ``bench`` and ``cost``."""

from __future__ import annotations

import asyncio
import datetime
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from deploy import config, output, paths
from deploy.errors import UserError

if TYPE_CHECKING:
    from benchmarks.cost import Energy
    from benchmarks.costing import Told
    from benchmarks.prices import ApiPrice
    from benchmarks.results import Result
    from benchmarks.suite import Suite

COMPARE_DEFAULT = ("openrouter/qwen/qwen3-8b", "openai/gpt-6-luna")
"""The smallest open model with a price row, and a small closed one."""

JSON = click.option("--json", "as_json", is_flag=True, help="Print the document as JSON.")


class Defaults(NamedTuple):
    """[cost] and [[compare]] of models.toml."""

    cost: config.Cost = config.Cost()
    compare: tuple[config.Comparison, ...] = ()


class Amount(click.ParamType[Decimal]):
    """A finite decimal number of at least 0, or above ``above``, and at most ``most``."""

    name = "X"

    def __init__(self, *, above: Decimal | None = None, most: Decimal | None = None) -> None:
        self._above, self._most = above, most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            self.fail(f"`{value}` is not a number", param, ctx)
        low = amount.is_finite() and (amount >= 0 if self._above is None else amount > self._above)
        if not low or (self._most is not None and amount > self._most):
            rule = "at least 0" if self._above is None else f"above {self._above}"
            self.fail(f"`{value}` is not {rule}{f' and at most {self._most}' if self._most else ''}", param, ctx)
        return amount


class Concurrencies(click.ParamType[tuple[int, ...]]):
    """``1,2,4``: whole numbers of at least 1, each once."""

    name = "N,N,…"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= 4096 for part in parts):
            self.fail(f"`{value}` is not a list like 1,2,4 of numbers from 1 to 4096", param, ctx)
        return tuple(dict.fromkeys(int(part) for part in parts))


@click.command()
@click.option("--url", help="Base URL of any OpenAI-compatible endpoint. Default: what is deployed here.")
@click.option("--model", help="Needed where the endpoint serves several.")
@click.option("--key-file", type=click.Path(path_type=Path), help="File that holds the API key.")
@click.option("--concurrency", type=Concurrencies(), default="1,2,4,8", show_default=True, help="Requests in flight.")
@click.option("--prompt-tokens", type=click.IntRange(16, 1_000_000), default=200, show_default=True, help="About.")
@click.option("--output-tokens", type=click.IntRange(2, 1_000_000), default=128, show_default=True, help="At most.")
@click.option("--requests", type=click.IntRange(1), help="Per point. Default: 4 c, at least 8, at least 10 s.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the prompts and the order of the points.")
@click.option("--replicates", type=click.IntRange(1, 10), default=1, show_default=True, help="3 give an interval.")
@click.option("--output", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the document here.")
@JSON
def bench(
    *,
    url: str | None,
    model: str | None,
    key_file: Path | None,
    concurrency: tuple[int, ...],
    prompt_tokens: int,
    output_tokens: int,
    requests: int | None,
    seed: int,
    replicates: int,
    file: Path | None,
    as_json: bool,
) -> None:
    """Measure latency and throughput of the running endpoint, or of any other, in a closed loop.

    The result is one JSON document, which `ownweights cost` prices. Exits 1 where a point fails its checks.
    """
    from benchmarks import endpoint, results
    from benchmarks.suite import Order, Suite

    order = Order(
        model=model,
        concurrencies=concurrency,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        requests=requests,
        replicates=replicates,
        seed=seed,
    )
    target = endpoint.resolve(url, key_file)
    suite = Suite(order, target, command=("ownweights", *sys.argv[1:]), say=output.say)
    try:
        _run(suite, target.base_url)
    except KeyboardInterrupt:
        if suite.result:
            output.say(f"the part that was measured, marked invalid: {results.write(suite.result, file)}")
        raise
    if suite.result:
        _deliver(suite.result, file, as_json)


@click.command()
@click.argument("result", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--usd-per-hour", "rent", type=Amount(), help="Rent of the machine. Default: [cost] of models.toml.")
@click.option("--other-usd-per-hour", "other", type=Amount(), default="0", help="Staff, colocation, licences.")
@click.option("--utilisation", type=Amount(above=Decimal(0), most=Decimal(1)), help="Busy part of its hours.")
@click.option("--watts-busy", type=Amount(), help="At the wall, under this load.")
@click.option("--watts-idle", type=Amount(), help="At the wall, idle.")
@click.option("--usd-per-kwh", type=Amount(), help="Price of electricity.")
@click.option("--compare", multiple=True, metavar="PROVIDER/MODEL", help="API to set beside it; can be repeated.")
@JSON
def cost(
    *,
    result: Path | None,
    rent: Decimal | None,
    other: Decimal,
    utilisation: Decimal | None,
    watts_busy: Decimal | None,
    watts_idle: Decimal | None,
    usd_per_kwh: Decimal | None,
    compare: tuple[str, ...],
    as_json: bool,
) -> None:
    """Price RESULT, by default the newest of `ownweights bench`, and set it beside dated API prices.

    Says which is cheaper at your utilisation, and at what utilisation that flips.
    """
    from benchmarks import prices, results
    from benchmarks.bill import bill
    from benchmarks.cost import Node
    from benchmarks.costing import cost as priced

    defaults = default_cost()
    rent, basis = _rent(rent, defaults)
    node = Node(rent_usd_per_hour=rent, other_usd_per_hour=other, energy=_energy(watts_busy, watts_idle, usd_per_kwh))
    names = compare or tuple(f"{row.provider}/{row.model}" for row in defaults.compare) or COMPARE_DEFAULT
    rows = [row for name in dict.fromkeys(names) for row in prices.find(name)]
    measured, path = (results.read(result), result) if result else results.newest(paths.results_dir())
    output.say(f"pricing {path}")
    costing = priced(measured, node, _utilisation(utilisation, defaults), rows, rent_basis=basis)
    today = datetime.datetime.now(datetime.UTC).date()
    _warn_of_stale(rows, today)
    if as_json:
        output.dump(costing)
    else:
        output.data(bill(costing, today))


def _warn_of_stale(rows: Sequence[ApiPrice], today: datetime.date) -> None:
    for row in rows:
        if row.is_stale(today):
            output.warn(f"the price of {row.label} is {(today - row.as_of).days} days old: of {row.as_of}")


def default_cost() -> Defaults:
    """What models.toml of this folder says under [cost] and [[compare]]; empty where there is no such file."""
    path = Path(config.FILE)
    if not path.exists():
        return Defaults()
    wanted = config.read(path)
    return Defaults(cost=wanted.cost, compare=wanted.compare)


def _rent(told: Decimal | None, defaults: Defaults) -> tuple[Decimal, str]:
    """The rent and where it is from."""
    if told is not None:
        return told, "--usd-per-hour"
    if defaults.cost.usd_per_hour is None:
        raise UserError(
            "what this machine costs per hour is not known, and no default would be right",
            hint="ownweights cost --usd-per-hour 0.05, or usd-per-hour under [cost] in models.toml",
        )
    return defaults.cost.usd_per_hour, f"{config.FILE} [cost]"


def _utilisation(told: Decimal | None, defaults: Defaults) -> Told:
    from benchmarks.cost import UTILISATION_DEFAULT
    from benchmarks.costing import Told

    if told is not None:
        return Told(value=told, provenance="user", basis="--utilisation")
    if defaults.cost.utilisation is not None:
        return Told(value=defaults.cost.utilisation, provenance="user", basis=f"{config.FILE} [cost]")
    return Told(value=UTILISATION_DEFAULT, provenance="predicted", basis="the default; --utilisation sets yours")


def _energy(busy: Decimal | None, idle: Decimal | None, usd_per_kwh: Decimal | None) -> Energy | None:
    from benchmarks.cost import Energy

    if busy is None or idle is None or usd_per_kwh is None:
        if (busy, idle, usd_per_kwh) != (None, None, None):
            raise UserError("energy needs all three", hint="--watts-busy W --watts-idle W --usd-per-kwh X")
        return None
    return Energy(watts_busy=busy, watts_idle=idle, usd_per_kwh=usd_per_kwh)


def _run(suite: Suite, base_url: str) -> None:
    import uvloop

    from benchmarks import endpoint
    from deploy.hardware import detection

    hardware = detection.detect(paths.hub_cache()) if endpoint.is_here(base_url) else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(suite.run(hardware))


def _deliver(result: Result, file: Path | None, as_json: bool) -> None:
    """Print and write it, then fail where it failed."""
    from benchmarks import feedback, results
    from benchmarks.report import report

    path = results.write(result, file)
    if feedback.keep(result):
        output.say("the speed of one stream is kept for the next plan")
    if as_json:
        output.dump(result)
    else:
        output.data(report(result))
    output.say(f"written: {path}")
    failed = [cell for cell in result.cells if not cell.usable]
    if failed:
        names = ", ".join(dict.fromkeys(check.name for cell in failed for check in cell.failed_checks))
        raise UserError(f"{len(failed)} of {len(result.cells)} points failed: {names}", where=str(path))
