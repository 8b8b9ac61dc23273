"""Which pairs of torch and triton the kernels were tried under, and one line of warning under any other."""

import functools
import importlib.metadata
import warnings

import triton

TESTED = (("2.13", "3.6"), ("2.13", "3.7"), ("2.13", "3.8"), ("2.13", "3.9"))
"""(torch, triton) by their first two numbers: the rows of results/compiled_versions."""


def untested_pair(torch_version: str, triton_version: str) -> str:
    """What to warn of this pair; empty where it was tried."""
    pair = (_minor(torch_version), _minor(triton_version))
    if pair in TESTED:
        return ""
    tried = ", ".join(f"{torch} with {triton}" for torch, triton in TESTED)
    return (
        f"the kernels are untested under torch {torch_version} with triton {triton_version} "
        f"(tested pairs: {tried}): check results, or install a tested pair"
    )


def triton_is_at_least(major: int, minor: int) -> bool:
    """Whether this Triton is of that version or a later one."""
    return tuple(int(number) for number in triton.__version__.split(".")[:2]) >= (major, minor)


@functools.cache
def warn_if_untested() -> None:
    """Warn, the first time that kernels are asked for in the process, where this pair of versions was never tried."""
    message = untested_pair(importlib.metadata.version("torch"), triton.__version__)
    if message:
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
