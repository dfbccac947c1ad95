"""Wishes that no box could fulfil: told apart from those that this one cannot. Pure."""

from __future__ import annotations

from deploy.errors import ConfigError
from deploy.planning.choice import Chooser


def refuse(chooser: Chooser) -> None:
    """Raises ConfigError where the model's wishes contradict each other, or the model itself."""
    wish = chooser.wish
    names = sorted({engine.name for engine in chooser.engines})
    if wish.engine is not None and wish.engine not in names:
        raise _error(wish.name, f'there is no engine "{wish.engine}"', f"one of: {', '.join(names)}")
    pairs = [(engine, variant) for engine in chooser.engines for variant in chooser.variants]
    asked = [(engine, variant) for engine, variant in pairs if not tuple(chooser.insists(engine, variant))]
    if not asked:
        said = "; ".join(dict.fromkeys(line for pair in pairs for line in chooser.insists(*pair)))
        keys = ", ".join(dict.fromkeys(variant.key for variant in chooser.variants))
        raise _error(wish.name, f"nothing is left of engines and variants: {said}", f"locked variants: {keys}")
    if not any(variant.format in engine.formats for engine, variant in asked):
        engines = " or ".join(dict.fromkeys(engine.name for engine, _ in asked))
        keys = ", ".join(dict.fromkeys(variant.key for _, variant in asked))
        raise _error(wish.name, f"{engines} does not read {keys}", "leave out `engine` or `precision`")
    windows = [variant.facts.context for engine, variant in asked if variant.format in engine.formats]
    most = None if None in windows else max(window for window in windows if window is not None)
    if wish.context is not None and most is not None and wish.context > most:
        raise _error(
            wish.name, f"context = {wish.context} is more than the model's {most}", f"context = {most} at most"
        )


def _error(model: str, message: str, hint: str) -> ConfigError:
    return ConfigError(f"model `{model}`: {message}", hint=hint)
