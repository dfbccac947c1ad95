"""A table of the catalogue's files, and the numbers in it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from deploy.dimensions import MOST

Size = Annotated[int, msgspec.Meta(ge=1, le=MOST)]
"""Of anything there is one of, if it is stated at all."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An unknown key is a mistake, not data to carry along."""
