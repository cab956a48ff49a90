import pytest
import torch
from torch import nn

from regrow.measures import mean_magnitude, weight_magnitude


def test_mean_over_all_weights_without_biases_and_norms() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    with torch.no_grad():
        model[0].weight.fill_(-1.0)
        model[0].bias.fill_(100.0)
        model[2].weight.fill_(4.0)
    assert weight_magnitude(model) == pytest.approx((6 * 1 + 3 * 4) / 9)
    assert mean_magnitude([]) == 0.0
