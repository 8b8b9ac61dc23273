"""Planted faults: one-line mutations of every kernel, and the tests that have to catch each of them."""
