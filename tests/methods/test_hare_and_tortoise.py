import pytest
import torch

from regrow.errors import ConfigError
from regrow.methods import HareAndTortoise
from tests.methods.by_hand import assert_equal, attached, descended, does_nothing, gradients, make_network, step, values


def test_the_slow_copy_follows_and_takes_over() -> None:
    model, optimizer, plastic = attached(HareAndTortoise(0.7, 3))
    w = values(model)
    slow = w
    for seed in range(7):
        w = descended(w, gradients(w, seed))
        slow = {n: 0.7 * slow[n] + 0.3 * w[n] for n in w}
        if seed in (2, 5):
            w = slow
        step(model, optimizer, seed)
        assert_equal(model, w)
        with plastic.evaluation_weights():
            assert_equal(model, slow)
        assert_equal(model, w)


def test_the_slow_copy_moves_in_half_precision_too() -> None:
    model = make_network().bfloat16()
    model, optimizer, plastic = attached(HareAndTortoise(0.999), model, example=torch.zeros(1, 3).bfloat16())
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        for _ in range(3):
            optimizer.step()
        for _ in range(2000):
            model[0].weight.fill_(2.0)
            optimizer.step()
    with plastic.evaluation_weights():
        assert (model[0].weight > 1.6).all()  # rounded to bf16 at each step it would stay where it is


def test_period_0_is_never() -> None:
    assert does_nothing(HareAndTortoise(period=0))


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"HareAndTortoise.momentum is a share and must lie in \[0, 1\], but is 1.1"):
        HareAndTortoise(1.1)
    with pytest.raises(ConfigError, match=r"HareAndTortoise.period must be a whole number of at least 0, but is 2.5"):
        HareAndTortoise(period=2.5)
