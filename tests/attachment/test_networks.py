"""Replacement on every kind of network: exact zeros, restored norms, cleared optimizer state, nothing disturbed."""

import copy

import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow.units.example import tensors_of
from tests.units.all_networks import NETWORKS
from tests.units.hand_written import RESNET18, Case

OPTIMIZERS = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    "adamw-fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.001, fused=True),
}
KINDS = (
    "mlp with batch norm",
    "mlp with layer norm",
    "convnet",
    "convnet, channels last",
    "permute before flatten",
    "grouped convolutions",
    "small resnet",
    "policy and value",
    "concatenation",
    "siamese",
    "one layer twice in sequence",
    "u-net",
    "densenet",
    "inverted residuals",
    "mlp-mixer",
    "noisy layers",
    "ensemble by bmm",
    "crelu",
)
SERVED = [*(case for case in NETWORKS if case.name in KINDS), RESNET18]


def outputs(model: nn.Module, example) -> list[Tensor]:
    torch.manual_seed(0)
    return list(tensors_of(model(*example) if isinstance(example, tuple) else model(example)))


def replaced(plastic: regrow.Attachment, events, *roles, statuses=("free", "shared", "coupled")):
    """For each tensor that replacements touched in some roles, which elements."""
    tensors = plastic.model.state_dict(keep_vars=True)
    masks: dict[str, Tensor] = {}
    for event in events:
        group = plastic.graph[event.group]
        for part in group.having(*roles) if group.status in statuses else ():
            mask = masks.setdefault(part.parameter, torch.zeros_like(tensors[part.parameter], dtype=torch.bool))
            mask[part.index(event.unit)] = True
    return {name: (tensors[name], mask) for name, mask in masks.items()}


def check(plastic: regrow.Attachment, events, example, before: dict[str, Tensor]) -> None:
    """What holds when the step that replaced these units has returned."""
    for group in {event.group for event in events}:
        # Where it is also the incoming weight of a newborn of another group, the re-draw wins.
        born = replaced(plastic, [event for event in events if event.group != group], "incoming")
        for name, (tensor, mask) in replaced(
            plastic, [event for event in events if event.group == group], "outgoing"
        ).items():
            silent = mask & ~born[name][1] if name in born else mask
            assert not tensor[silent].any(), f"an outgoing weight in {name} is not exactly 0"
    for event in events:
        for part in plastic.graph[event.group].having("bias", "gain", "statistic"):
            place, fresh = part.index(event.unit), part.fresh
            fresh = before[part.parameter][place] if fresh is None else fresh
            tensor = plastic.model.state_dict()[part.parameter]
            assert bool((tensor[place] == fresh).all()), f"{part.role} {part.parameter} is not fresh"
    for name, (tensor, mask) in replaced(plastic, events, "incoming", "outgoing", "bias", "gain").items():
        for key, value in plastic.optimizer.state[tensor].items():
            if torch.is_tensor(value) and value.shape == tensor.shape:
                assert not value[mask].any(), f"{key} of replaced elements of {name} is not 0"

    # Other newborns, with every outgoing weight at 0: the same outputs, in both modes.
    one, other = copy.deepcopy(plastic.model), copy.deepcopy(plastic.model)
    only = {"statuses": ("free", "shared")}
    with torch.no_grad():
        for name, (_, mask) in replaced(plastic, events, "incoming", "bias", "gain", **only).items():
            other.get_parameter(name)[mask] = torch.randn(int(mask.sum()))
        for name, (_, mask) in replaced(plastic, events, "outgoing", **only).items():
            for network in (one, other):
                network.get_parameter(name)[mask] = 0.0
        for training in (True, False):
            pairs = zip(outputs(one.train(training), example), outputs(other.train(training), example), strict=True)
            assert all(torch.equal(left, right) for left, right in pairs), "newborns move the output"


def train_and_check(plastic: regrow.Attachment, example: object, steps: int) -> None:
    """Train and check every replacement; every group that is served must have had one."""
    seen = set()
    at_attach = copy.deepcopy(plastic.model.state_dict())
    for _ in range(steps):
        before = len(plastic.events)
        loss = sum(output.square().mean() for output in tensors_of(outputs(plastic.model, example)))
        plastic.optimizer.zero_grad()
        loss.backward()
        plastic.optimizer.step()
        events = plastic.events[before:]
        seen |= {event.group for event in events}
        if events:
            check(plastic, events, example, at_attach)
    assert seen == {group.name for group in plastic.groups}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("case", SERVED, ids=lambda case: case.name)
def test_replacements_are_clean_on_every_kind_of_network(case: Case, make) -> None:
    model, example = case.build()
    optimizer = make(model.parameters())
    rate = 0.01 if case is RESNET18 else 0.1
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(rate, 1), example=example)
    train_and_check(plastic, example, steps=3 if case is RESNET18 else 8)
    if case is RESNET18:
        statuses = [group.status for group in plastic.groups]
        assert (statuses.count("shared"), statuses.count("free")) == (4, 8)


def test_statistics_are_restored_in_a_model_that_was_moved() -> None:
    """Moving puts new buffers in the place of those that were there at attach."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(0.5, 0), example=torch.randn(4, 5))
    model.double()
    model(torch.randn(4, 5, dtype=torch.float64)).sum().backward()
    optimizer.step()
    units = [event.unit for event in plastic.events]
    assert len(units) == 4
    assert not model[1].running_mean[units].any() and (model[1].running_var[units] == 1).all()


def test_a_layer_that_was_exchanged_is_noticed() -> None:
    """As when a class is added: the old layer is nobody's, the new one would keep reading newborns."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(0.5, 0), example=torch.randn(4, 5))
    model(torch.randn(4, 5)).sum().backward()
    optimizer.step()
    model[2] = nn.Linear(8, 3)
    optimizer.add_param_group({"params": model[2].parameters()})
    model(torch.randn(4, 5)).sum().backward()
    with pytest.raises(regrow.RegrowError, match=r"2.weight is not the parameter that it was at attach\(\)"):
        optimizer.step()
    plastic.detach()
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(0.5, 0), example=torch.randn(4, 5))
    model(torch.randn(4, 5)).sum().backward()
    optimizer.step()
    assert not model[2].weight[:, [event.unit for event in plastic.events]].any()


LAYOUTS = {
    "channels first": lambda maps: maps.flatten(1),
    "channels last": lambda maps: maps.permute(0, 2, 3, 1).flatten(1),
    "channels last in memory": lambda maps: maps.to(memory_format=torch.channels_last).flatten(1),
}


@pytest.mark.parametrize("flatten", LAYOUTS.values(), ids=LAYOUTS)
def test_what_a_channel_sends_through_a_flatten_is_silenced_and_nothing_else(flatten) -> None:
    """A probe that lights up one channel at all its places tells which columns are whose."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.out = nn.Conv2d(1, 4, 2), nn.Linear(4 * 9, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.out(flatten(torch.relu(self.conv(images))))

    torch.manual_seed(0)
    model, images = Network(), torch.randn(5, 1, 4, 4)
    with torch.no_grad():
        model.conv.bias[2] = -100.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    plastic = regrow.attach(model, optimizer, regrow.methods.ReDo(1, 0.0), example=images)
    before = model.out.weight.detach().clone()
    model(images).sum().backward()
    optimizer.step()
    assert [event.unit for event in plastic.events] == [2]
    for channel in range(4):
        probe = torch.zeros(1, 4, 3, 3)
        probe[:, channel] = torch.randn(3, 3)
        sent, sent_before = (nn.functional.linear(flatten(probe), weight) for weight in (model.out.weight, before))
        assert sent_before.all()
        assert not sent.any() if channel == 2 else torch.equal(sent, sent_before)
