import math
import random

import pytest
import torch
from torch import nn

import regrow
from regrow.errors import ConfigError
from regrow.methods import SelfNormalizedReset
from tests.methods.by_hand import does_nothing


def attached(method: SelfNormalizedReset, units: int) -> tuple[nn.Sequential, torch.optim.Optimizer, regrow.Attachment]:
    """A unit for each input, which fires when that is positive; nothing is learned."""
    model = nn.Sequential(nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(units))
        model[0].bias.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    example = torch.zeros(2, units)
    return model, optimizer, regrow.attach(model, optimizer, method, example=example, init=identity)


def identity(group: object, units: torch.Tensor, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.eye(shape[1])[units]


def feed(model: nn.Sequential, optimizer: torch.optim.Optimizer, fires: list[bool], size: int = 2) -> None:
    """One step on a batch whose last example makes units fire."""
    inputs = torch.full((size, len(fires)), -1.0)
    inputs[-1] = torch.tensor([1.0 if each else -1.0 for each in fires])
    model(inputs).sum().backward()
    optimizer.step()


def silent(plastic: regrow.Attachment) -> list[int]:
    """Examples since each unit fired, from what is left of its threshold."""
    (method,) = plastic.methods
    state = plastic.state_of("0")
    threshold = torch.where(state["threshold"] > 0, state["threshold"], float(method.largest_gap))
    return ((1 - state["utility"]) * threshold).round().int().tolist()


class ByHand:
    """One unit, from the rule: gaps in bins of `resolution` examples, each gap as the upper end of its bin."""

    def __init__(self, method: SelfNormalizedReset) -> None:
        self.method = method
        self.begin()

    def begin(self) -> None:
        self.silent, self.since, self.threshold, self.gaps = 0, 0, self.method.largest_gap, []

    def step(self, number: int, fires: bool, size: int) -> bool:
        """Whether it is re-drawn."""
        m = self.method
        if fires and self.silent:
            self.gaps.append(min(math.ceil(self.silent / m.resolution), math.ceil(m.largest_gap / m.resolution)))
        self.silent = 0 if fires else self.silent + size
        self.since += 1
        if number % m.period:
            return False
        if self.since >= m.update_period:
            if self.gaps:
                ordered = sorted(self.gaps)
                place = math.ceil((1 - m.rejection_share) * len(ordered) - 1e-9)
                percentile = ordered[place - 1] * m.resolution
                new = percentile if percentile < self.threshold else 2 * self.threshold
                self.threshold = min(max(new, size), m.largest_gap)
            self.since, self.gaps = 0, []
        if self.silent < self.threshold or (self.silent == self.threshold and m.reset_when == "longer"):
            return False
        self.begin()
        return True


@pytest.mark.parametrize("reset_when", ["longer", "as_long"])
@pytest.mark.parametrize("resolution", [1, 4])
def test_equals_the_rule_unit_by_unit(resolution: int, reset_when: str) -> None:
    method = SelfNormalizedReset(
        period=3, rejection_share=0.25, largest_gap=60, update_period=12, resolution=resolution, reset_when=reset_when
    )
    chances = [0.9, 0.5, 0.3, 0.1, 0.02, 1.0]
    model, optimizer, plastic = attached(method, len(chances))
    hands = [ByHand(method) for _ in chances]
    draws = random.Random(0)
    expected = []
    for number in range(1, 401):
        # Halfway, what was lively grows silent, and the reverse.
        now = chances if number < 200 else chances[::-1]
        fires = [draws.random() < chance for chance in now]
        feed(model, optimizer, fires)
        expected += [(number, unit) for unit, hand in enumerate(hands) if hand.step(number, fires[unit], 2)]
        assert silent(plastic) == [hand.silent for hand in hands]
    assert [(event.step, event.unit) for event in plastic.events] == expected
    assert len({unit for _, unit in expected}) >= 3 and len(expected) > 10


def test_a_unit_that_always_fires_keeps_its_threshold() -> None:
    """In the published code it gets the lowest, and one silent batch resets it."""
    model, optimizer, plastic = attached(SelfNormalizedReset(1, update_period=2, largest_gap=100, resolution=1), 2)
    for number in range(20):
        feed(model, optimizer, [True, number % 2 == 0])
    assert plastic.state_of("0")["threshold"].tolist() == [100.0, 2.0]
    feed(model, optimizer, [False, True])
    assert not plastic.events
    for _ in range(60):
        feed(model, optimizer, [False, True])
    assert {event.unit for event in plastic.events} == {0}


def test_a_channel_fires_if_it_does_anywhere_on_its_map() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(18, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
        model[0].bias.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    images = torch.zeros(4, 1, 3, 3)
    images[2, 0, 1, 2] = 1.0
    plastic = regrow.attach(model, optimizer, SelfNormalizedReset(), example=images)
    model(images).sum().backward()
    optimizer.step()
    assert silent(plastic) == [0, 4]


@pytest.mark.parametrize(
    ("model", "single"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(3)),
        (nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Conv2d(4, 2, 1)), torch.randn(1, 3, 3)),
    ],
    ids=["vector", "image"],
)
def test_without_a_batch_dimension_it_says_so(model: nn.Sequential, single: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regrow.attach(model, optimizer, SelfNormalizedReset(), example=single)
    model(single).sum().backward()
    text = "SelfNormalizedReset counts examples along the first dimension, but the activation of group '0' has none"
    with pytest.raises(ConfigError, match=text):
        optimizer.step()


def test_a_rejection_share_of_0_is_nothing() -> None:
    assert does_nothing(SelfNormalizedReset(1, 0.0, largest_gap=1, resolution=1))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"period": 0}, "period must be a whole number of at least 1, but is 0"),
        ({"rejection_share": 1.5}, r"rejection_share is a share and must lie in \[0, 1\], but is 1.5"),
        ({"update_period": 0}, "update_period must be a whole number of at least 1, but is 0"),
        ({"largest_gap": 0}, "largest_gap must be a whole number of at least 1, but is 0"),
        ({"reset_when": "never"}, "reset_when cannot be 'never'; did you mean 'longer'"),
        ({"largest_gap": 8}, "resolution must be at most largest_gap, 8, but is 16"),
    ],
)
def test_bad_settings(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=f"SelfNormalizedReset.{text}"):
        SelfNormalizedReset(**settings)


def test_a_gap_as_long_as_all_others_is_no_reason() -> None:
    """P(A ≥ 2) is 1 where all gaps are 2."""
    for reset_when in ("longer", "as_long"):
        method = SelfNormalizedReset(1, update_period=4, largest_gap=100, resolution=1, reset_when=reset_when)
        model, optimizer, plastic = attached(method, 1)
        for number in range(40):
            feed(model, optimizer, [number % 2 == 0])
        assert bool(plastic.events) == (reset_when == "as_long")
