"""The compile check's list of layers is what the suites and networks launch now."""

import pytest

from tidepool.benchmarking.launched_layers import LAUNCHED, as_text, launched_layers
from tidepool.kernels.compile_check.launched import launched_layers as cases


@pytest.mark.full
def test_the_list_is_up_to_date() -> None:
    assert LAUNCHED.read_text(encoding="utf-8") == as_text(launched_layers()), (
        "run python -m tidepool.benchmarking.launched_layers"
    )


def test_every_line_is_a_case_with_a_name_of_its_own() -> None:
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names)
    assert "vgg16_cifar_5_b512" in names  # the hand list missed its weight gradient's spill
