"""What several tests of the networks need."""

import types

import pytest


@pytest.fixture(scope="module")
def torchvision() -> types.ModuleType:
    try:
        import torchvision.models
    except ImportError:
        pytest.skip("torchvision is not installed")
    except RuntimeError as error:  # built for another PyTorch, or for CUDA where PyTorch is for CPUs
        pytest.skip(f"torchvision cannot be imported: {error}")
    return torchvision.models
