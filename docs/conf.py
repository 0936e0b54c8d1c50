"""Settings of Sphinx; `make docs` lays the sources out and calls it."""

project = "tenfold"
html_title = "tenfold"
html_theme = "furo"
html_show_copyright = False
html_show_sphinx = False
html_show_sourcelink = False

extensions = ["sphinx.ext.autodoc", "numpydoc", "myst_parser"]
myst_heading_anchors = 3

# Docstrings refer to objects in single backticks and state the types of parameters themselves.
default_role = "py:obj"
autodoc_typehints = "none"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
python_maximum_signature_line_length = 90
