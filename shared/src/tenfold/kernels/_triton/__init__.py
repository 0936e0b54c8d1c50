"""Kernels in Triton; imported only when one of them runs."""
