"""Commands that run something: deploy, rollback, serve, down, ps, logs, env, chat, mirror."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy import output, paths
from deploy.cli import engines
from deploy.commands.options import FROM, JSON, LOCKED, QUIET, here
from deploy.errors import UserError

if TYPE_CHECKING:
    from deploy.weights.places import Only
    from serving.service import Service


@click.command()
@LOCKED
@FROM
@JSON
def deploy(locked: bool, only: Only | None, as_json: bool) -> None:
    """Lock, plan, pull, verify, install and start; returns when the endpoint answers.

    A second run with nothing to do changes nothing.
    """
    from serving import deployment

    with deployment.only_one():
        running = deployment.bring_up(here(), engines(), locked=locked, only=only)
    _tell(running, as_json=as_json)


def _tell(running: Service, *, as_json: bool) -> None:
    from serving import deployment

    found = deployment.report(running)
    if as_json:
        output.dump(found)
    else:
        deployment.show(found)


@click.command()
@LOCKED
@FROM
@click.option("--prepared", is_flag=True, help="Serve what the last deploy prepared, without looking again.")
def serve(locked: bool, only: Only | None, prepared: bool) -> None:
    """The whole chain in the foreground, for systemd and containers. SIGTERM drains and ends it."""
    from deploy import prepare
    from deploy.weights import verify
    from serving import deployment, server

    if prepared:
        found = prepare.read()
        for planned in found.plan.models:
            verify.refuse(planned.launch.variant)
    else:
        with deployment.only_one():
            found = deployment.prepared(here(), engines(), locked=locked, only=only)
    server.run(found, engines())


@click.command()
@click.argument("number", type=click.IntRange(min=0), default=1)
@click.option("--no-deploy", is_flag=True, help="Only put the lock back; `ownweights deploy` follows it.")
@JSON
def rollback(number: int, no_deploy: bool, as_json: bool) -> None:
    """Go back to an earlier lock, and deploy it. NUMBER is as in `ownweights history`; the one before, if left out.

    If it does not come up, models.lock is as before.
    """
    from deploy.changes import history
    from deploy.changes import rollback as back
    from serving import deployment

    project = here()
    history.notice(project.folder)
    with deployment.only_one():
        was, lock = back.choose(project, number, engines())
        with back.swapped(project, lock, f"rollback to {was.digest[:12]}"):
            if no_deploy:
                output.say(f"rolled back: {project.lock_path}")
                return
            running = deployment.bring_up(project, engines(), locked=True, only=None)
    _tell(running, as_json=as_json)


@click.command()
def down() -> None:
    """Stop the gateway and its engines. Running answers have ten seconds to finish."""
    from serving import deployment

    deployment.bring_down()


@click.command()
@JSON
@QUIET
def ps(as_json: bool, quiet: bool) -> None:
    """What is running: each model with its engine, revision, state, memory and load."""
    from serving import keys, service, status

    rows = status.rows(service.need(), keys.operator_key(paths.key_file()))
    if as_json:
        output.dump(rows)
    elif quiet:
        for row in rows:
            output.data(row.model)
    else:
        status.table(rows)


@click.command()
@click.argument("model", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added.")
@click.option("-n", "lines", default=50, show_default=True, help="How many of the last lines.")
def logs(model: str | None, follow: bool, lines: int) -> None:
    """Log of a model's engine, or of the gateway where no MODEL is named."""
    from deploy import prepare
    from serving import logs as reading

    path = paths.logs_dir() / "gateway.log"
    if model is not None:
        plans = {name: plan for plan in prepare.read().plan.models for name in (plan.model, *plan.aliases)}
        if model not in plans:
            raise UserError(f"no model `{model}` is deployed", hint=f"deployed: {', '.join(plans)}")
        path = Path(plans[model].log)
    reading.show(path, lines=lines, follow=follow)


@click.command()
def env() -> None:
    """Exports for the shell: eval "$(ownweights env)"."""
    from serving import keys, service

    running = service.need()
    output.data(f"export OPENAI_BASE_URL={shlex.quote(running.base_url)}")
    output.data(f"export OPENAI_API_KEY={shlex.quote(keys.operator_key(paths.key_file()))}")


@click.command()
@click.argument("text")
@click.option("--model", help="Which model; the first one where this is left out.")
@click.option("--system", help="A system prompt.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer.")
def chat(text: str, model: str | None, system: str | None, max_tokens: int | None) -> None:
    """Ask one question; the answer is streamed to stdout."""
    from serving import keys, service

    running = service.need()
    client = running.client(key=keys.operator_key(paths.key_file()))
    name = model or client.get("/v1/models")[1]["data"][0]["id"]
    messages = [{"role": "system", "content": system}] if system else []
    body = {"model": name, "messages": [*messages, {"role": "user", "content": text}], "stream": True}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    for event in client.stream("/v1/chat/completions", body):
        for choice in event["choices"]:
            sys.stdout.write(choice["delta"].get("content") or "")
            sys.stdout.flush()
    output.data("")


@click.command()
@click.option("--listen", default="127.0.0.1:8765", show_default=True, metavar="ADDR:PORT", help="Where to listen.")
def mirror(listen: str) -> None:
    """Serve what the lock here, and those before it, name and this disk holds, to boxes that set HF_ENDPOINT.

    Read-only, and the stock client of the Hub works against it. Ends on Ctrl-C or SIGTERM.
    """
    from deploy import lockfile
    from deploy.changes import history
    from deploy.weights.shelf import Shelf
    from serving import mirror

    project = here()
    lock = lockfile.read(project.lock_path)
    shelf = Shelf(mirror.servable((lock, *history.earlier(project.folder, lock))))
    if not shelf.commits():
        raise UserError(
            "nothing of the lock that a Hub could serve is on this disk",
            where=str(project.lock_path),
            hint="ownweights pull",
        )
    with mirror.listen(listen) as listener:
        url = mirror.url(listener)
        for commit in shelf.commits():
            output.say(f"{commit.repo} at {commit.commit[:12]}: {len(commit.entries)} file(s)")
        output.say(f"on another box, with the same models.lock: HF_ENDPOINT={url} ownweights deploy")
        output.data(url)
        mirror.serve(shelf, listener)
