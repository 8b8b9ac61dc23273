"""Mutants of the kernels, made by rule from their syntax trees: and the tests that catch a seeded sample."""
