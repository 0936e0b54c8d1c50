"""An import-linter contract on what importing a module brings in at once.

It differs from the built-in forbidden contract in two ways: imports inside functions do not
count, since they happen when the function is called, and importing ``a.b`` also imports ``a``.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from grimp import ImportGraph
from importlinter import ContractCheck
from importlinter.contracts.forbidden import ForbiddenContract


class EagerContract(ForbiddenContract):
    """Forbid what `source_modules` import, directly or not, as soon as they are imported."""

    type_name = "eager"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Check the graph without its deferred imports."""
        for importer in sorted(graph.modules):
            if graph.is_module_squashed(importer):
                continue
            _drop_deferred(graph, importer)
            parent = importer.rpartition(".")[0]
            if parent in graph.modules:
                graph.add_import(
                    importer=importer,
                    imported=parent,
                    line_number=1,
                    line_contents=f"(imports {parent} first)",
                )
        return super().check(graph, verbose)


def _drop_deferred(graph: ImportGraph, importer: str) -> None:
    imported = graph.find_modules_directly_imported_by(importer)
    eager = set(_eager_lines(_source(importer))) if imported else set()
    for module in imported:
        details = graph.get_import_details(importer=importer, imported=module)
        if not any(detail["line_number"] in eager for detail in details):
            graph.remove_import(importer=importer, imported=module)


def _eager_lines(path: Path) -> Iterator[int]:
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node.lineno
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            nodes.extend(ast.iter_child_nodes(node))


def _source(module: str) -> Path:
    relative = Path(*module.split("."))
    candidates = (
        Path(folder, path)
        for folder in sys.path
        for path in (relative / "__init__.py", relative.with_suffix(".py"))
    )
    return next(path for path in candidates if path.is_file())
