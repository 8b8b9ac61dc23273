"""Kernels as they are compiled, on a simulated GPU."""
