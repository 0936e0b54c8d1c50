"""Programs of the tenfold workspace: reproduce, tables, layers, bench, docs, new, release, tag.

Each is a module of that name; `tenfold_tools.cli` is their command line.
"""
