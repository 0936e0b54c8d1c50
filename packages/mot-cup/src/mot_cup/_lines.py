"""Text files of a row a line, whose errors name the file and the line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._boxes import Floats
from mot_cup._tracks import Ints
from tenfold import DataError
from tenfold.experiment import write_whole


@dataclass(frozen=True)
class Lines:
    """Numbers of a file, a row a line.

    Attributes
    ----------
    path : Path
    texts : list of str
        The lines, without empty ones.
    numbers : list of int
        Their numbers, from 1.
    values : ndarray of float64
        Shape (lines, columns).
    words : list of str
        Those of the column that holds words, where there is one.
    """

    path: Path
    texts: list[str]
    numbers: list[int]
    values: Floats
    words: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def check(
        self, fine: ArrayLike, expected: str, remedy: str = "Correct the line or leave it out."
    ) -> None:
        """Refuse the first line that is not fine."""
        if not np.all(fine):
            self.refuse(int(np.argmin(fine)), expected, remedy)

    def refuse(self, row: int, expected: str, remedy: str) -> None:
        """Raise the error that names a row's line.

        Raises
        ------
        DataError
            Always.
        """
        raise DataError(_describe(self.path, self.numbers[row], self.texts[row]), expected, remedy)

    def check_finite(self, columns: Sequence[int]) -> None:
        """Refuse numbers that are none or infinite."""
        self.check(np.isfinite(self.values[:, columns]).all(1), "finite numbers")

    def whole(self, column: int, what: str, least: int) -> Ints:
        """Return a column of whole numbers, refusing others and those below `least`."""
        values = self.values[:, column]
        # Beyond 2^53 a float is no longer one whole number.
        fine = (values == np.floor(values)) & (values >= least) & (np.abs(values) < 2**53)
        self.check(fine, f"a whole number from {least} on for {what}")
        return values.astype(np.int64)

    def check_distinct(self) -> None:
        """Refuse a line that is a copy of another."""
        _, first = np.unique(self.texts, return_index=True)
        copies = np.ones(len(self), np.bool_)
        copies[first] = False
        self.check(~copies, "every line once", "Leave the copy out.")


def read_lines(path: Path, separator: str | None, widths: Iterable[int], words: int | None = None) -> Lines:
    """Read rows of numbers.

    Parameters
    ----------
    path : Path
    separator : str or None
        Between numbers; None is any white space.
    widths : iterable of int
        How many values a line may have; all lines have equally many.
    words : int, optional
        The column that holds words.

    Raises
    ------
    DataError
        The file is missing or no text, or a line has another number of values or something else than numbers.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"no file {path}", "an existing file", "Correct the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})", "a text file", "Choose another file.") from error
    numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
    texts = [lines[number - 1] for number in numbers]
    rows = [text.split(separator) for text in texts]
    allowed = sorted(widths)
    width = len(rows[0]) if rows else allowed[0]
    for number, text, row in zip(numbers, texts, rows, strict=True):
        if len(row) != width or width not in allowed:
            raise DataError(
                f"{_describe(path, number, text)}, {len(row)} values",
                f"{width}, as in the lines before" if width in allowed else f"one of {allowed} a line",
                "The file may be of another format, or truncated here.",
            )
    named = [] if words is None else [row.pop(words) for row in rows]
    try:
        values = np.array(rows, dtype=np.float64)
    except ValueError:
        for number, text, row in zip(numbers, texts, rows, strict=True):
            if not all(map(_is_number, row)):
                raise DataError(
                    _describe(path, number, text), "numbers", "Correct the line or leave it out."
                ) from None
        raise
    return Lines(path, texts, numbers, values.reshape(len(rows), width - len(named[:1])), named)


def write_lines(path: Path, rows: Iterable[Sequence[float | int | str]], separator: str) -> None:
    """Write rows, whole or not at all.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    text = "".join(separator.join(map(str, row)) + "\n" for row in rows)
    write_whole(path, lambda temporary: _write(temporary, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _describe(path: Path, number: int, text: str) -> str:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return f"{path}, line {number}: {shown.strip()!r}"
