"""Signals during training."""

import os
import signal
import threading

import pytest

from tidepool.program import STOPPED
from tidepool.training.stopping import Interrupted, StopRequest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)])
def test_a_signal_waits_until_it_is_asked_for(number, code):
    with StopRequest() as stop:
        stop.raise_if_received()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted, match=f"stopped by {number.name}") as caught:
            stop.raise_if_received()
    assert caught.value.exit_code == code


def test_the_second_signal_acts_as_before_the_block():
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in STOPPED]
    with StopRequest():
        assert [signal.getsignal(number) for number in STOPPED] != before
    assert [signal.getsignal(number) for number in STOPPED] == before


def test_in_another_thread_it_does_nothing_and_raises_nothing():
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with StopRequest() as stop:
                stop.raise_if_received()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
