"""The simulator behind Triton: a library in place of the CUDA driver, and a Triton driver that uses it."""
