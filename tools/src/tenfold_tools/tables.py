"""Write the result tables of every README from the run records, or check that they agree.

A README asks for a table with a pair of comments, ``table NAME results/FILE.json`` and ``/table``, each
at the start of a line; the text between them is replaced. The README of ``results`` can have some, too,
with ``FILE.json`` alone. NAME is a key of the `tables` of an experiment of the package
that wrote the records. The root README's table of packages, those with a record in ``results``,
stands between ``packages`` and ``/packages``.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tenfold.errors import SettingError, TenfoldError, UnknownNameError
from tenfold.experiment import Claim, read_records
from tenfold_tools._workspace import Member, load_experiments, members

_MARKER = re.compile(
    r"(?P<open>^<!-- (?P<kind>table|packages)(?P<arguments>[^>]*?) -->\n)"
    r"(?P<body>.*?)(?P<close>^<!-- /(?P=kind) -->)",
    re.DOTALL | re.MULTILINE,
)


class StaleTableError(TenfoldError):
    """A README says something else than the run records that its table is made from."""


@dataclass(frozen=True)
class Block:
    """A generated part of a README: what it says and what it should say."""

    readme: Path
    name: str
    source: str
    start: int
    line: int
    written: str
    generated: str


def write(root: Path) -> list[Path]:
    """Write every table of the workspace's READMEs and return the READMEs that changed.

    Raises
    ------
    UnknownNameError
        A marker names a table that no experiment of the package has.
    DataError
        A record file is missing or corrupt.
    SettingError
        A marker is malformed.
    """
    changed = []
    for readme in readmes(root):
        text = readme.read_text(encoding="utf-8")
        updated = text
        for block in reversed(list(_blocks(root, readme, text))):
            updated = updated[: block.start] + block.generated + updated[block.start + len(block.written) :]
        if updated != text:
            readme.write_text(updated, encoding="utf-8")
            changed.append(readme)
    return changed


def stale(root: Path) -> list[StaleTableError]:
    """Return one error for each table that differs from its records; raises as `write` does."""
    return [
        _difference(root, block)
        for readme in readmes(root)
        for block in _blocks(root, readme, readme.read_text(encoding="utf-8"))
        if block.written != block.generated
    ]


def readmes(root: Path) -> list[Path]:
    """Return the READMEs of the workspace: the root's, every member's and that of its results."""
    folders = [
        root,
        *(part for member in members(root) for part in (member.folder, member.folder / "results")),
    ]
    return [folder / "README.md" for folder in folders if (folder / "README.md").is_file()]


def _blocks(root: Path, readme: Path, text: str) -> Iterator[Block]:
    matches = list(_MARKER.finditer(text))
    if len(matches) != len(re.findall(r"^<!-- (?:table|packages)\b", text, re.MULTILINE)):
        raise SettingError(
            f"{readme.relative_to(root)} has a table marker without its end",
            "`<!-- /table -->` or `<!-- /packages -->` after each one",
            "Add the missing end marker.",
        )
    for match in matches:
        arguments = match["arguments"].split()
        if match["kind"] == "packages":
            name, source, generated = "packages", "packages/*/results", _packages(root)
        elif len(arguments) == 2:
            name, source = arguments
            generated = _table(name, readme.parent, source)
        else:
            raise SettingError(
                f"{readme.relative_to(root)} has the marker {match['open'].strip()!r}",
                "`<!-- table NAME results/FILE.json -->`",
                "Name one table and one record file.",
            )
        line = text.count("\n", 0, match.end("open")) + 1
        yield Block(readme, name, source, match.start("body"), line, match["body"], generated)


def _table(name: str, folder: Path, source: str) -> str:
    records = read_records(folder / source)
    package = records[0].package
    tables = {key: table for item in load_experiments(package) for key, table in item.tables.items()}
    if name not in tables:
        raise UnknownNameError(f"table of {package}", name, tables)
    versions = ", ".join(sorted({record.version for record in records}))
    commands = ", ".join(f"`{command}`" for command in dict.fromkeys(record.command for record in records))
    origin = f"From [{source}]({source}): {package} {versions}, {commands}."
    return f"{tables[name](records).markdown()}\n\n{origin}\n"


def _packages(root: Path) -> str:
    columns = ("package", "what it is", "status", "measured here")
    packages = [
        member
        for member in members(root)
        if member.folder.parent == root / "packages" and any(member.folder.glob("results/*.json"))
    ]
    rows = [_row(root, member) for member in packages]
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _row(root: Path, member: Member) -> tuple[str, str, str, str]:
    found: dict[str, dict[str, list[Claim]]] = {}
    for path in sorted(member.folder.glob("results/*.json")):
        records = read_records(path)
        if records[0].claims:
            link = f"[{path.stem}]({path.relative_to(root).as_posix()})"
            same = [record.claims[0] for record in records if record.claims]
            found.setdefault(same[0].name, {})[link] = same
    folder = member.folder.relative_to(root).as_posix()
    return (
        f"[{member.name}]({folder})",
        member.description,
        member.status,
        "<br>".join(headline(claims) for claims in found.values()) or "no claim yet",
    )


def headline(claims: Mapping[str, Sequence[Claim]]) -> str:
    """Put one claim into a line of text, as the runs of every sweep found it, by the sweep's link."""
    every = [claim for same in claims.values() for claim in same]
    first = every[0]
    unit = f" {first.unit}" if first.unit else ""
    holds = sum(claim.holds for claim in every)
    verdict = f"holds in {holds} of {len(every)} runs"
    if holds in (0, len(every)):
        verdict = "holds" if holds else "does not hold"
    ours = ", ".join(f"{link} {fmean(c.ours for c in same):.4g}{unit}" for link, same in claims.items())
    return f"{first.name} (paper {first.paper:.4g}{unit}): {ours}; {verdict}"


def _difference(root: Path, block: Block) -> StaleTableError:
    written, generated = block.written.splitlines(), block.generated.splitlines()
    changes = difflib.SequenceMatcher(None, written, generated, autojunk=False).get_opcodes()
    _, start, end, new_start, new_end = next(change for change in changes if change[0] != "equal")
    record = Path(block.source)
    if block.name != "packages":
        record = (block.readme.parent / record).relative_to(root)
    return StaleTableError(
        f"{block.readme.relative_to(root)}, table {block.name!r}, line {block.line + start} says"
        f" {_quoted(written[start:end])}",
        f"{_quoted(generated[new_start:new_end])} from {record}",
        "Run `make tables`.",
    )


def _quoted(lines: list[str]) -> str:
    return repr(lines[0]) if lines else "nothing"
