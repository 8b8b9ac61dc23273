"""Optimizers and schedules."""

import pytest
import torch
from torch import nn

from tidepool.training.config import Config
from tidepool.training.optimization import make_optimizer, make_schedule


def learning_rates(config: Config, total_steps: int) -> list[float]:
    optimizer = make_optimizer(nn.Linear(2, 2), config)
    schedule = make_schedule(optimizer, config, total_steps)
    rates = []
    for step in range(total_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < total_steps:
            schedule.step()
    return rates


def test_weights_decay_and_vectors_do_not():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    decaying, plain = make_optimizer(model, Config(weight_decay=0.1)).param_groups
    assert decaying["weight_decay"] == 0.1
    assert all(parameter.dim() >= 2 for parameter in decaying["params"])
    assert plain["weight_decay"] == 0
    assert len(decaying["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_momentum_is_sgds_momentum_and_adamws_first_beta():
    model = nn.Linear(2, 2)
    sgd = make_optimizer(model, Config(momentum=0.8))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.param_groups[0]["momentum"], sgd.param_groups[0]["nesterov"]) == (0.8, True)
    assert make_optimizer(model, Config(momentum=0.0)).param_groups[0]["nesterov"] is False
    adamw = make_optimizer(model, Config(optimizer="adamw", momentum=0.8))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["betas"] == (0.8, 0.999)


def test_onecycle_rises_to_the_peak_and_ends_near_zero():
    rates = learning_rates(Config(lr=0.5, warmup=0.25), 40)
    assert rates[0] == pytest.approx(0.5 / 25)
    assert max(rates) == pytest.approx(0.5)
    assert rates.index(max(rates)) == 9
    assert rates[-1] == pytest.approx(0.5 / 25 / 1e4)


@pytest.mark.parametrize(("total_steps", "warmup"), [(1, 0.25), (4, 0.25), (10, 0.1), (100, 0.01), (3, 0.0), (2, 0.99)])
def test_onecycle_survives_short_runs_and_short_warmups(total_steps, warmup):
    rates = learning_rates(Config(warmup=warmup), total_steps)
    assert len(rates) == total_steps
    assert all(0 < rate <= 0.03 + 1e-12 for rate in rates)


def test_constant_is_constant_after_its_warmup():
    assert learning_rates(Config(schedule="constant", warmup=0.0, lr=0.1), 5) == [0.1] * 5
    rates = learning_rates(Config(schedule="constant", warmup=0.5, lr=0.1), 8)
    assert rates[0] == pytest.approx(0.1 / 25)
    assert rates[:5] == sorted(rates[:5])
    assert rates[4:] == [0.1] * 4


def test_onecycle_leaves_momentum_as_configured():
    optimizer = make_optimizer(nn.Linear(2, 2), Config(momentum=0.5))
    schedule = make_schedule(optimizer, Config(momentum=0.5), 10)
    for _ in range(9):
        optimizer.step()
        schedule.step()
        assert optimizer.param_groups[0]["momentum"] == 0.5
