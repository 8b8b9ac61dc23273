"""Tests of the cycle model, on sequences written by hand and on kernels that Triton compiles."""
