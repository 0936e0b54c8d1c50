"""Programs of the tenfold workspace: reproduce, tables, layers and bench.

Each is a module of that name; `tenfold_tools.cli` is their command line.
"""
