"""Activations, losses and Adam against those of torch."""

import numpy as np
import pytest
import torch
from torch import nn

from regrow.kernels.activations import ELU, LEAKY_RELU, RELU, SIGMOID, SWISH, TANH, activate
from regrow.kernels.adam import Adam, adam_bias, adam_step, stride_of
from regrow.kernels.losses import is_right, softmax_slope, squared_error_slope

OF_TORCH = {
    RELU: nn.ReLU(),
    LEAKY_RELU: nn.LeakyReLU(0.3),
    TANH: nn.Tanh(),
    SIGMOID: nn.Sigmoid(),
    ELU: nn.ELU(0.3),
    SWISH: nn.SiLU(),
}
NAN = float("nan")


@pytest.mark.parametrize("kind", OF_TORCH)
def test_values_and_derivatives(kind: int) -> None:
    z = torch.cat([torch.linspace(-30, 30, 101), torch.tensor([0.0, -0.0, NAN, 1e4, -1e4])]).requires_grad_()
    expected = OF_TORCH[kind](z)
    expected.sum().backward()
    values, bends = np.concatenate([[7, 7], z.detach().numpy(), [7]]).astype(np.float32), np.full(109, 7, np.float32)
    activate(kind, np.float32(0.3), values, bends, 2, 106)
    np.testing.assert_allclose(values[2:-1], expected.detach().numpy(), rtol=1e-6, atol=1e-7)
    assert z.grad is not None
    np.testing.assert_allclose(bends[2:-1], z.grad.numpy(), rtol=1e-5, atol=1e-7)
    assert values[[0, 1, -1]].tolist() == bends[[0, 1, -1]].tolist() == [7, 7, 7]


def test_a_small_derivative_of_elu_keeps_its_digits() -> None:
    values, bends = np.full(1, -20, np.float32), np.zeros(1, np.float32)
    activate(ELU, np.float32(1), values, bends, 0, 1)
    assert bends[0] == pytest.approx(np.exp(-20), rel=1e-6)


@pytest.mark.parametrize(
    "logits", [[0.0, 0.0, 0.0], [1.0, 3.0, 3.0], [NAN, 1.0, NAN], [2.0, NAN, 5.0], [-200.0, 1.0, 100.0]]
)
def test_cross_entropy(logits: list[float]) -> None:
    outputs = torch.tensor(logits, requires_grad=True)
    nn.functional.cross_entropy(outputs, torch.tensor(1)).backward()
    values, slopes = np.array([9, 9, *logits, 9], np.float32), np.full(6, 7, np.float32)
    best = int(outputs.argmax())
    assert [is_right(values, 2, 3, label) for label in range(3)] == [label == best for label in range(3)]
    softmax_slope(values, slopes, 2, 3, 1)
    assert outputs.grad is not None
    np.testing.assert_allclose(slopes[2:5], outputs.grad.numpy(), rtol=1e-5, atol=1e-7)
    assert slopes[[0, 1, 5]].tolist() == [7, 7, 7]


def test_squared_error() -> None:
    outputs, targets = torch.randn(3, requires_grad=True), torch.randn(2, 3)
    error = nn.functional.mse_loss(outputs, targets[1])
    error.backward()
    values, slopes = np.array([9, *outputs.tolist(), 9], np.float32), np.full(5, 7, np.float32)
    assert squared_error_slope(values, slopes, 1, 3, targets.numpy(), 1) == pytest.approx(error.item(), rel=1e-5)
    assert outputs.grad is not None
    np.testing.assert_allclose(slopes[1:4], outputs.grad.numpy(), rtol=1e-5)
    assert slopes[[0, 4]].tolist() == [7, 7]


def test_adam_follows_torch_with_silent_inputs_too() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 5)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    theta = torch.cat([layer.weight.detach().t().flatten(), layer.bias.detach()]).numpy().copy()
    adam = Adam(0.9, 0.999, np.float32(1e-8), np.zeros(20, np.float32), np.zeros(20, np.float32))
    ones, outgoing, moved = np.ones(8, np.float32), np.zeros(3, np.float32), np.zeros(5, np.float32)
    before = np.abs(theta[:15].reshape(3, 5)).sum(axis=0)
    for step in range(1, 201):
        x = torch.randn(3) * torch.tensor([step % 3 == 0, step < 50, True])
        slope = torch.randn(5)
        layer.weight.grad, layer.bias.grad = torch.outer(slope, x), slope.clone()
        optimizer.step()
        values, slopes = np.zeros(8, np.float32), np.zeros(8, np.float32)
        values[:3], slopes[3:] = x.numpy(), slope.numpy()
        expected = (theta[:15].reshape(3, 5) * slope.numpy()).sum(axis=1)
        stride, keep = stride_of(adam, 0.01, step), np.float32(1)
        adam_step(theta, 0, 5, 3, values, ones, slopes, 0, 3, adam, stride, keep, outgoing, moved, True)
        adam_bias(theta, 15, 5, slopes, 3, adam, stride, keep)
        np.testing.assert_allclose(slopes[:3], expected, rtol=1e-5, atol=1e-6)
    weights = theta[:15].reshape(3, 5)
    np.testing.assert_allclose(weights, layer.weight.detach().t().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(theta[15:], layer.bias.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outgoing, np.abs(weights).sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(before + moved, np.abs(weights).sum(axis=0), rtol=1e-5)
