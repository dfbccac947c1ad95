"""The real places on this box, so that a plan can show the exact command before anything exists."""

from __future__ import annotations

from deploy import environment, paths
from deploy.plan import Layout
from deploy.weights import cache


def here() -> Layout:
    """Nothing of it is made."""
    return Layout(
        weights=cache.weights,
        environment=environment.folder,
        sockets=paths.run_dir(),
        state=paths.state_dir(),
        logs=paths.logs_dir(),
    )
