"""The command table and the composition root. Commands are named by string, so nothing heavy is imported
before its command runs, and deploy/ knows serving/ and benchmarks/ by name only.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click
from click.exceptions import NoArgsIsHelpError, NoSuchCommand

from deploy import __version__, output
from deploy.errors import OwnweightsError, UserError, from_system

if TYPE_CHECKING:
    from deploy.engine import Engine

COMMANDS: dict[str, tuple[str, str]] = {
    "deploy": ("serving.commands:deploy", "Lock, plan, pull, verify, install, start: the whole chain."),
    "rollback": ("serving.commands:rollback", "Go back to an earlier lock, and deploy it."),
    "serve": ("serving.commands:serve", "The same in the foreground, for systemd and containers."),
    "down": ("serving.commands:down", "Stop the gateway and its engines."),
    "ps": ("serving.commands:ps", "What is running: state, engine, revision, memory."),
    "logs": ("serving.commands:logs", "Log of the gateway or of a model's engine."),
    "env": ("serving.commands:env", "Shell exports of the base URL and the key, for eval."),
    "chat": ("serving.commands:chat", "One question, streamed answer."),
    "plan": ("deploy.commands.plan:plan", "What would run here and why. Changes nothing."),
    "lock": ("deploy.commands.lock:lock", "Resolve models.toml into models.lock."),
    "drift": ("deploy.commands.lock:drift", "What changed upstream since the lock. Changes nothing."),
    "pull": ("deploy.commands.weights:pull", "Fetch the locked weights that this box needs."),
    "verify": ("deploy.commands.weights:verify", "Check the weights on disk against the lock, offline."),
    "places": ("deploy.commands.places:places", "Where a model can be had from here, and how fast."),
    "bundle": ("deploy.commands.bundle:bundle", "Carry a deployment to a box without a network, as one archive."),
    "mirror": ("serving.commands:mirror", "Serve the locked weights to other boxes, as a Hub."),
    "history": ("deploy.commands.storage:history", "Earlier locks of this project."),
    "gc": ("deploy.commands.storage:gc", "Show what nothing needs any more, and free it."),
    "licences": ("deploy.commands.audit:licences", "Under which terms the locked models are given."),
    "sbom": ("deploy.commands.audit:sbom", "The bill of materials: models, files, engines, packages."),
    "models": ("deploy.commands.catalogue:models", "The catalogue, and what of it fits this box."),
    "hardware": ("deploy.commands.box:hardware", "What this box has."),
    "doctor": ("deploy.commands.doctor:doctor", "Check the surroundings; each problem with its fix."),
    "paths": ("deploy.commands.box:paths_", "Where everything lies."),
    "bench": ("benchmarks.commands:bench", "Measure latency and throughput of the running endpoint."),
    "cost": ("benchmarks.commands:cost", "Price a result and set it beside API prices."),
}

DEBUG_HINT = "run it again with OWNWEIGHTS_DEBUG=1 and report what it prints"
ENVIRONMENT: dict[str, str] = {
    "OWNWEIGHTS_HOME": "moves everything of ours: state, data, cache",
    "OWNWEIGHTS_DEBUG": "1 shows tracebacks",
    "OWNWEIGHTS_NO_PROGRESS": "any value hides progress bars",
    "HF_ENDPOINT": "another Hub or mirror",
    "HF_TOKEN": "token for gated repositories, sent to that Hub only, by https only",
    "HF_HUB_OFFLINE": "1 asks no Hub",
    "HF_HUB_DISABLE_XET": "1 leaves the Hub's content store out",
    "HF_HOME": "moves the Hugging Face cache, where weights lie (HF_HUB_CACHE too)",
    "UV_CACHE_DIR": "moves uv's packages, which the engines' environments are linked from",
    "SOURCE_DATE_EPOCH": "Unix seconds: the time in an SBOM",
}


def engines() -> tuple[Engine, ...]:
    """All engines in order of preference, from the one place that registers them."""
    found: tuple[Engine, ...] = import_module("serving.engines").ENGINES
    return found


class Table(click.Group):
    """Loads a command when it is called; lists all from the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            # The lazy table leaves click's own list empty, and with it the suggestions.
            raise NoSuchCommand(args[0], possibilities=list(COMMANDS), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])
        with formatter.section("Environment"):
            formatter.write_dl(list(ENVIRONMENT.items()))


@click.command(cls=Table, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ownweights")
def ownweights() -> None:
    """Self-hosted open-weights inference: pinned weights, an explained plan, one base URL, an honest price."""


def main() -> None:
    """Entry point: errors become ``error:`` and ``hint:`` with a stable exit code."""
    # A killed make, a supervisor: what Ctrl-C cleans up is cleaned up then too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    output.take_any_character()
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """The exit code of one call: 0 ok, 1 the user's fault, 2 ours, 3 wrong bytes, 4 does not fit,
    75 busy, 130 interrupted; of `plan` see there."""
    try:
        code = ownweights.main(args, prog_name="ownweights", standalone_mode=False)
    except OwnweightsError as error:
        return _failed(error)
    except NoArgsIsHelpError as error:
        output.say(error.format_message())
        return 1
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "ownweights"
        return _failed(UserError(error.format_message(), hint=f"{command} --help"))
    except (click.Abort, KeyboardInterrupt):
        output.say("interrupted")
        return 130
    except OSError as error:
        return _failed(from_system(error))
    except Exception as error:  # noqa: BLE001  # the edge of the process: what gets here is a mistake of ours
        fault = OwnweightsError(f"a fault of ours: {type(error).__name__}: {error}", hint=DEBUG_HINT)
        return _failed(fault, cause=error)
    return code if isinstance(code, int) else 0


def _failed(error: OwnweightsError, cause: Exception | None = None) -> int:
    if os.environ.get("OWNWEIGHTS_DEBUG") == "1":
        raise cause or error
    output.fail(error)
    return error.exit_code


if __name__ == "__main__":
    main()
