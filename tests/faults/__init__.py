"""Planted faults: small mutations of every kernel, and the tests that have to catch each of them."""
