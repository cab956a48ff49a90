import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow.errors import ConfigError, ModelError
from regrow.networks.layers import OnlineNormalization
from tests.networks.layers.online import Online


def plain(features: int, **settings: Any) -> OnlineNormalization:
    return OnlineNormalization(features, affine=False, guard=None, **settings).double()


@pytest.mark.parametrize("places", [(), (5,), (2, 3)])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_forward_and_backward_are_the_paper_s_for_one_example_after_the_other(
    batch: int, places: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    layer = plain(3, forward_decay=0.8, backward_decay=0.7)
    by_hand = Online(3, 0.8, 0.7, 1e-5)
    for _ in range(6):
        value = (2 + 3 * torch.randn(batch, 3, *places, dtype=torch.float64)).requires_grad_()
        gradient = torch.randn_like(value)
        result = layer(value)
        result.backward(gradient)
        seen = [by_hand.forward(one.reshape(3, -1)) for one in value.detach().numpy()]
        back = [by_hand.backward(one.reshape(3, -1), *two) for one, two in zip(gradient.numpy(), seen, strict=True)]
        np.testing.assert_allclose(result.detach().flatten(1), [y.ravel() for y, _ in seen], rtol=1e-12, atol=1e-12)
        assert value.grad is not None
        np.testing.assert_allclose(value.grad.flatten(1), [one.ravel() for one in back], rtol=1e-11, atol=1e-12)
        for buffer, other in (
            (layer.mean, by_hand.mean),
            (layer.var, by_hand.var),
            (layer.control_output, by_hand.error_y),
            (layer.control_mean, by_hand.error_1),
        ):
            np.testing.assert_allclose(buffer, other, rtol=1e-11, atol=1e-12)


def test_evaluation_uses_the_statistics_and_moves_nothing() -> None:
    layer = plain(3, forward_decay=0.5)
    layer(torch.randn(4, 3, dtype=torch.float64))
    before = copy.deepcopy(layer.eval().state_dict())
    value = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    result = layer(value)
    result.sum().backward()
    deviation = np.sqrt(layer.var.numpy() + 1e-5)
    np.testing.assert_allclose(result.detach(), (value.detach().numpy() - layer.mean.numpy()) / deviation)
    np.testing.assert_allclose(value.grad, np.broadcast_to(1 / deviation, (2, 3)))
    assert all(torch.equal(one, before[name]) for name, one in layer.state_dict().items())


def test_gain_and_bias_come_before_the_guard() -> None:
    value = 10 * torch.randn(2, 3, 4)
    results = {}
    for guard in ("layer_scaling", "clamp", None):
        layer = OnlineNormalization(3, guard=guard, clamp=2.0)
        assert layer.weight is not None and layer.bias is not None
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
            layer.bias.fill_(0.5)
        results[guard] = layer(value).detach().numpy()
    free = results[None]
    normal = Online(3, 0.999, 0.99, 1e-5)
    by_hand = np.stack([normal.forward(one)[0] for one in value.double().numpy()])
    by_hand = by_hand * np.array([1.0, 2.0, 3.0])[:, None] + 0.5
    np.testing.assert_allclose(free, by_hand, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(results["clamp"], free.clip(-2, 2))
    scale = np.sqrt((free**2).mean((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(results["layer_scaling"], free / scale, rtol=1e-5)


def test_a_stationary_stream_comes_out_with_mean_0_and_variance_1_and_the_gradient_orthogonal() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = plain(4, forward_decay=0.99, backward_decay=0.95)
    scale = torch.tensor([0.1, 1.0, 5.0, 30.0], dtype=torch.float64)
    values: list[Tensor] = []
    gradients: list[Tensor] = []
    for _ in range(300):
        value = (7 + torch.randn(16, 4, generator=generator, dtype=torch.float64)) * scale
        value.requires_grad_()
        result = layer(value)
        # A gradient with a mean and a component along the result, which a normalization cannot follow.
        result.backward(1 + 2 * result.detach() + torch.randn(16, 4, generator=generator, dtype=torch.float64))
        assert value.grad is not None
        values.append(result.detach())
        gradients.append(value.grad * scale)
    out, back = torch.cat(values[100:]), torch.cat(gradients[100:])
    torch.testing.assert_close(out.mean(0), torch.zeros(4).double(), atol=0.05, rtol=0)
    torch.testing.assert_close(out.var(0), torch.ones(4).double(), atol=0.1, rtol=0)
    torch.testing.assert_close(back.mean(0), torch.zeros(4).double(), atol=0.02, rtol=0)
    torch.testing.assert_close((back * out).mean(0), torch.zeros(4).double(), atol=0.1, rtol=0)


def test_two_forwards_before_their_backwards_as_in_gradient_accumulation() -> None:
    layer, apart = plain(2, backward_decay=0.5), Online(2, 0.999, 0.5, 1e-5)
    values = [torch.randn(1, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    results = [layer(value) for value in values]
    seen = [apart.forward(value.detach().numpy().T) for value in values]
    for value, result, two in zip(values, results, seen, strict=True):
        result.sum().backward()
        np.testing.assert_allclose(value.grad.T, apart.backward(np.ones((2, 1)), *two), rtol=1e-10)


def test_a_gradient_that_is_not_finite_leaves_the_accumulators() -> None:
    layer = OnlineNormalization(2, guard=None)
    layer(torch.randn(1, 2)).sum().backward()
    before = layer.control_output.clone(), layer.control_mean.clone()
    value = torch.ones(1, 2, requires_grad=True)
    layer(value).backward(torch.tensor([[float("inf"), 1.0]]))
    assert not bool(value.grad.isfinite()[0, 0])
    for buffer, old in zip((layer.control_output, layer.control_mean), before, strict=True):
        assert buffer[0] == old[0] and buffer[1] != old[1]


def network(guard: Any = "layer_scaling") -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), OnlineNormalization(4, 0.9, 0.8, guard=guard), nn.ReLU(), nn.Linear(4, 2))


def train(model: nn.Module, seed: int, steps: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(1, 6, generator=generator)).square().sum().backward()
        optimizer.step()
    return [tensor.clone() for tensor in model.state_dict().values()]


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "state_dict"])
def test_copies_go_on_bit_for_bit_and_apart(how: str) -> None:
    model = network()
    train(model, 1)
    if how == "deepcopy":
        other: nn.Module = copy.deepcopy(model)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        other = network()
        other.load_state_dict(torch.load(file, weights_only=True))
    expected = train(model, 2)
    assert all(torch.equal(*pair) for pair in zip(train(other, 2), expected, strict=True))
    train(other, 3)
    assert all(torch.equal(*pair) for pair in zip(model.state_dict().values(), expected, strict=True))


def test_a_bfloat16_model_keeps_its_statistics_in_float32() -> None:
    torch.manual_seed(0)
    layer = OnlineNormalization(3, guard="clamp")
    layer(1 + torch.randn(8, 3))
    before = layer.mean.clone()
    layer.bfloat16()
    assert layer.weight is not None and layer.weight.dtype == torch.bfloat16
    assert torch.equal(layer.mean, before) and layer.mean.dtype == torch.float32
    value = torch.randn(2, 3, dtype=torch.bfloat16, requires_grad=True)
    result = layer(value)
    result.sum().backward()
    assert result.dtype == torch.bfloat16 and value.grad is not None and value.grad.dtype == torch.bfloat16
    assert layer.control_mean.dtype == torch.float32 and bool(layer.control_mean.any())
    assert layer.eval()(value).dtype == torch.bfloat16


def test_autocast_changes_no_precision_inside() -> None:
    model = network()
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model[0](torch.randn(2, 6))
        result = model[1](hidden)
    assert hidden.dtype == result.dtype == torch.bfloat16
    alone = network()[1]
    torch.testing.assert_close(alone(hidden.float()).bfloat16(), result, rtol=0, atol=0)
    assert torch.equal(alone.mean, model[1].mean)
    result.sum().backward()
    assert model[1].control_output.dtype == torch.float32 and bool(model[1].control_output.any())


def test_channels_last_stays_channels_last() -> None:
    value = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    result = OnlineNormalization(3, guard="clamp")(value)
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result, OnlineNormalization(3, guard="clamp")(value.contiguous()))


def test_an_empty_batch_changes_nothing() -> None:
    layer = OnlineNormalization(3)
    assert layer(torch.empty(0, 3)).shape == (0, 3)
    assert not bool(layer.mean.any()) and bool((layer.var == 1).all())


@pytest.mark.slow
def test_compiled_it_is_one_graph_and_moves_the_same_buffers() -> None:
    model, other = network("clamp"), network("clamp")
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    expected = train(model, 1)
    train(compiled, 1)  # type: ignore[arg-type]
    torch.testing.assert_close(list(other.state_dict().values()), expected)


STATISTICS = {"mean": 0.0, "var": 1.0, "control_output": 0.0, "control_mean": 0.0}


@pytest.mark.parametrize(("guard", "status"), [("layer_scaling", "coupled"), ("clamp", "free"), (None, "free")])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("training", [True, False])
def test_units_own_their_statistics(guard: Any, status: str, batch: int, training: bool) -> None:
    model, example = network(guard).train(training), torch.randn(batch, 6)
    graph = regrow.find_units(model, example)
    group = graph["0"]
    assert group.status == status and group.consumers == ("3.weight",)
    assert {part.parameter: part.fresh for part in group.having("statistic")} == {
        f"1.{name}": fresh for name, fresh in STATISTICS.items()
    }
    assert all(part.index(2)[0].tolist() == [2] for part in group.having("statistic"))
    verification = regrow.verify(model, example, graph)
    assert verification.ok and verification.checks, verification


def test_channels_of_a_convolution_own_their_statistics() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), OnlineNormalization(4, guard="clamp"), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2)
    )
    example = torch.randn(2, 3, 5, 5)
    graph = regrow.find_units(model, example)
    assert graph["0"].status == "free" and len(graph["0"].having("statistic")) == 4
    assert regrow.verify(model, example, graph).ok


def test_a_statistic_that_is_read_elsewhere_blocks() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network("clamp")

        def forward(self, value: Tensor) -> Tensor:
            return self.net(value) + self.net[1].mean.sum()

    (group, *_) = regrow.find_units(Reads(), torch.randn(4, 6))
    assert group.status == "blocked" and "net.1.mean is used as a value" in " ".join(group.reasons)


def test_replaced_units_start_with_fresh_statistics() -> None:
    model = network("clamp")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    method = regrow.ContinualBackprop(replacement_rate=0.05, maturity_threshold=2)
    plastic = regrow.attach(model, optimizer, method, example=torch.randn(1, 6))
    replaced = []
    for _ in range(40):
        optimizer.zero_grad()
        model(1 + torch.randn(1, 6)).square().sum().backward()
        seen = len(plastic.events)
        optimizer.step()
        for event in plastic.events[seen:]:
            replaced.append(event.unit)
            assert {name: getattr(model[1], name)[event.unit].item() for name in STATISTICS} == STATISTICS
    assert replaced


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": 0}, "OnlineNormalization needs at least 1 feature, but got 0."),
        ({"forward_decay": 1.0}, "OnlineNormalization needs 0 <= forward_decay < 1, but got 1.0."),
        ({"backward_decay": -0.1}, "OnlineNormalization needs 0 <= backward_decay < 1, but got -0.1."),
        ({"eps": 0.0}, "OnlineNormalization needs eps > 0, but got 0.0."),
        ({"clamp": 0.0}, "OnlineNormalization needs clamp > 0, but got 0.0."),
        ({"guard": "ls"}, "OnlineNormalization knows no guard 'ls'. Known: 'layer_scaling', 'clamp', None."),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        OnlineNormalization(**{"features": 3, **settings})
    assert str(error.value) == message


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 5, 3)])
def test_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError) as error:
        OnlineNormalization(3)(torch.randn(shape))
    assert str(error.value) == (
        f"OnlineNormalization has 3 features and needs a value of shape [batch, 3, ...], but got {list(shape)}. "
        "A single example is a batch of 1."
    )
