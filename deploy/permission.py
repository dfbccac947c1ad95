"""What the user allowed to run, in models.toml. The lock only says what there is: it may have been edited alone."""

from __future__ import annotations

from deploy.config import FILE, Config
from deploy.errors import UserError
from deploy.lockfile import Model, Variant


def refuse(config: Config, model: Model, variant: Variant) -> None:
    """Raises UserError, with the line to add, for a pickle or a Python file that models.toml does not allow."""
    wish = next((wish for wish in config.model if wish.name == model.name), None)
    under = f'under name = "{model.name}" in {FILE}'
    if variant.format == "pickle" and not (wish and wish.allow_pickle):
        raise UserError(
            f"model `{model.name}`: {variant.key} are pickles, which can run code when they are loaded",
            where=FILE,
            hint=f"to trust them, {under}: allow-pickle = true",
        )
    allowed = wish.allow_remote_code if wish else ()
    code = [file for file in variant.files if file.path.endswith(".py")]
    unread = next((file for file in code if f"sha256:{file.sha256}" not in allowed), None)
    if unread:
        listed = ", ".join(f'"sha256:{file.sha256}"' for file in code)
        raise UserError(
            f"model `{model.name}`: the lock lets `{unread.path}` run, which {FILE} does not allow",
            where=FILE,
            hint=f"read it; to allow exactly these files, {under}: allow-remote-code = [{listed}]",
        )
