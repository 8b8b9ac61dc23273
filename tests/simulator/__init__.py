"""Tests of the simulator, on PTX written by hand and on kernels that Triton compiles."""
