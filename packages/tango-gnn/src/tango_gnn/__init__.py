"""Training of graph neural networks in int8."""

__version__ = "0.1.0"

__all__ = ["__version__"]
