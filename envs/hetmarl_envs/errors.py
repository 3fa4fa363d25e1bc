"""The errors that hetmarl raises on purpose: what was given, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HetmarlError(Exception):
    """Base of every error that hetmarl raises on purpose; its message stands alone."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return " ".join(str(arg) for arg in self.args)


class ContractError(HetmarlError):
    """An environment or a batch breaks the data contract."""


class UnknownNameError(HetmarlError, KeyError):
    """A name that is not in a registry."""


class MissingExtraError(HetmarlError, ImportError):
    """An optional dependency is not installed; the message holds the pip line."""


class ConfigError(HetmarlError, ValueError):
    """A setting of the wrong type, out of range, or at odds with another one."""


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option most like ``name``, or None where nothing is close."""
    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return by_lower[close[0]] if close else None


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the nearest option, or the empty string."""
    match = nearest(name, options)
    return f" Did you mean '{match}'?" if match else ""
