"""Typed errors: each names what came, what was expected and what to do.

Commands built with `tenfold.experiment` print the message without a traceback and leave
with `exit_code`: 2 for a mistake in what was asked for, 1 for a failure on the way.
"""

import difflib
from collections.abc import Iterable


class TenfoldError(Exception):
    """Base of every error that the tenfold packages raise on purpose.

    Parameters
    ----------
    came : str
        What was received, as a clause: ``"sparsity is 1.5"``.
    expected : str
        What would have been right: ``"a number between 0 and 1, both excluded"``.
    remedy : str
        What to do about it, as a sentence.
    """

    exit_code = 1

    def __init__(self, came: str, expected: str, remedy: str) -> None:
        super().__init__(came, expected, remedy)
        self.came = came
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.came}; expected {self.expected}. {self.remedy}"


class SettingError(TenfoldError, ValueError):
    """A setting or argument is impossible: out of range, of the wrong shape or kind."""

    exit_code = 2


class UnknownNameError(TenfoldError, LookupError):
    """A name is not among those that exist; the nearest one is suggested.

    Parameters
    ----------
    kind : str
        What the name was meant to name: ``"data set"``, ``"package"``, ``"layer"``.
    name : str
        The name that came.
    known : iterable of str
        The names that exist.
    """

    exit_code = 2

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = sorted(known)
        nearest = difflib.get_close_matches(name, self.known, n=1, cutoff=0.4)
        super().__init__(
            f"no {kind} is named {name!r}",
            f"one of {', '.join(self.known)}" if self.known else f"a {kind}, and none exists",
            f"Did you mean {nearest[0]!r}?" if nearest else "Choose one of these.",
        )

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str]]]:
        return type(self), (self.kind, self.name, self.known)


class DataError(TenfoldError):
    """A data file is missing, truncated or corrupt."""


class CheckpointError(TenfoldError):
    """A checkpoint is corrupt, or belongs to a run with other settings."""


class DivergedError(TenfoldError, ArithmeticError):
    """A loss or metric became NaN or infinite."""


class OutputError(TenfoldError, OSError):
    """A result cannot be written where it was asked for."""


class MissingExtraError(TenfoldError, ImportError):
    """An optional dependency is needed for what was asked and is not installed."""
