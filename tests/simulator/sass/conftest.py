"""Compiled kernels, once a session."""

import pytest

from tests.simulator.sass.compiled import Kernels


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels(tmp_path_factory.mktemp("cubins"))
