"""Replacement in weight-normalised networks: through the originals, and nothing but the unit's own effect is lost."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal
from torch.nn.utils.parametrizations import weight_norm as normed

import regrow
from regrow.attachment.unit_worker import Event
from regrow.methods import Method
from regrow.units.parametrized import Parametrized, behind
from tests.attachment.training import batch, same, train

OPTIMIZERS = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.002),
    "adamw-fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.002, fused=True),
}


def mlp(dim: int | None = 0, seed: int = 0) -> nn.Sequential:
    """20–12–10–5, ReLU."""
    torch.manual_seed(seed)
    layers = [normed(nn.Linear(a, b), dim=dim) for a, b in ((20, 12), (12, 10), (10, 5))]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def convnet() -> nn.Sequential:
    """Also a depthwise convolution, a batch norm and transposed convolutions, in which a unit's outgoing weights are
    all that their norms are taken over.
    """
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 4, 5)), normed(nn.Conv2d(1, 8, 3, padding=1)), nn.BatchNorm2d(8), nn.ReLU(),
        normed(nn.Conv2d(8, 8, 3, padding=1, groups=8)), nn.ReLU(), normed(nn.ConvTranspose2d(8, 6, 2)), nn.ReLU(),
        normed(nn.ConvTranspose2d(6, 6, 2, stride=2)), nn.ReLU(), nn.Flatten(), normed(nn.Linear(720, 5)),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "rows": mlp, "columns": lambda: mlp(1), "all": lambda: mlp(None), "images": convnet,
}  # fmt: skip


def weights(model: nn.Module, plastic: regrow.Attachment) -> dict[str, Tensor]:
    """Everything that units consist of, by the names that slices have."""
    names = {part.parameter for group in plastic.graph for part in group.slices}
    held = {name: behind(model, name) for name in names}
    return {
        name: (one.value() if isinstance(one, Parametrized) else one.detach()).clone() for name, one in held.items()
    }


def replaced(plastic: regrow.Attachment, events: list[Event], *roles: str) -> dict[str, Tensor]:
    """Which elements of each tensor belong to replaced units in some roles."""
    masks: dict[str, Tensor] = {}
    for event in events:
        for part in plastic.graph[event.group].having(*roles):
            mask = masks.setdefault(part.parameter, torch.zeros(part.shape, dtype=torch.bool))
            mask[part.index(event.unit)] = True
    return masks


class Checked:
    """A network in training that looks at every replacement: from just before it, after the optimizer's own step."""

    def __init__(self, model: nn.Sequential, optimizer: torch.optim.Optimizer, method: Method) -> None:
        self.model = model
        self.optimizer = optimizer
        optimizer.register_step_post_hook(self.look)  # before regrow's, since hooks run in order
        self.plastic = regrow.attach(model, optimizer, method, example=batch(0)[0])
        self.replacements = 0

    def look(self, *args: object) -> None:
        self.stepped = copy.deepcopy(self.model)
        self.before = weights(self.model, self.plastic)
        self.known = len(self.plastic.events)

    def check(self, step: int) -> None:
        events = self.plastic.events[self.known :]
        self.replacements += len(events)
        if not events:
            return
        after = weights(self.model, self.plastic)
        incoming = replaced(self.plastic, events, "incoming")
        outgoing = replaced(self.plastic, events, "outgoing")
        touched = replaced(self.plastic, events, "incoming", "outgoing", "bias", "gain", "statistic")
        for name, mask in touched.items():
            redrawn = incoming.get(name, torch.zeros_like(mask))
            if name in outgoing:
                assert not after[name][outgoing[name] & ~redrawn].any(), f"outgoing weights in {name} are not exactly 0"
            assert after[name][redrawn].all() and after[name].isfinite().all()
            torch.testing.assert_close(after[name][~mask], self.before[name][~mask], rtol=2e-6, atol=0)
        self.check_state(events)
        self.check_output(events)

    def check_state(self, events: list[Event]) -> None:
        for name, mask in replaced(self.plastic, events, "incoming", "outgoing", "gain").items():
            held = behind(self.model, name)
            if not isinstance(held, Parametrized):
                continue
            length, direction = (self.optimizer.state[original] for original in held.originals.values())
            for key in direction.keys() - {"step"}:
                assert not direction[key][mask].any() and direction[key][~mask].any() != mask.all()
                if length[key].shape == mask.shape[:1] + (1,) * (mask.dim() - 1):
                    whole = mask.flatten(1).all(1)
                    assert not length[key].flatten()[whole].any()
                    assert length[key].flatten()[~whole].any() != whole.all()

    def check_output(self, events: list[Event]) -> None:
        """The same as that of the network before, with the units cut out of it."""
        cut = copy.deepcopy(self.stepped)
        for group in {event.group for event in events}:
            for name, mask in replaced(self.plastic, [e for e in events if e.group == group], "outgoing").items():
                held = behind(cut, name)
                if isinstance(held, Parametrized):
                    held.set(held.value().masked_fill(mask, 0.0))
                else:
                    held.detach().masked_fill_(mask, 0.0)
        inputs = batch(12345, 16)[0]
        with torch.no_grad():
            expected, found = cut.eval()(inputs), copy.deepcopy(self.model).eval()(inputs)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_replacements_are_clean(build: Callable[[], nn.Sequential], make: Callable[..., torch.optim.Optimizer]) -> None:
    model = build()
    checked = Checked(model, make(model.parameters()), regrow.ContinualBackprop(0.05, 5))
    train(model, checked.optimizer, 300 if build is mlp else 50, after=checked.check)
    assert {event.group for event in checked.plastic.events} == {group.name for group in checked.plastic.groups}
    assert checked.replacements == len(checked.plastic.events) > 30


def test_all_units_at_once_and_again() -> None:
    """Rows that read nothing, and whose norm is 0, over many steps."""
    model = mlp()
    checked = Checked(model, torch.optim.Adam(model.parameters(), lr=0.01), regrow.ContinualBackprop(1.0, 2))
    train(model, checked.optimizer, 40, after=checked.check)
    assert checked.replacements > 200
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_the_table_names_the_weights_and_the_law_of_the_layer() -> None:
    def attached(model: nn.Module) -> str:
        return str(regrow.attach(model, torch.optim.Adam(model.parameters()), "cbp", example=batch(0)[0]))

    plain = mlp()
    for index in (0, 2, 4):
        parametrize.remove_parametrizations(plain[index], "weight")
    assert attached(mlp()) == attached(plain)
    assert "0.weight" in attached(plain) and "uniform in [-0.224, 0.224]" in attached(plain)


def test_new_weights_follow_the_law_of_the_layer() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    regrow.attach(model, optimizer, regrow.ContinualBackprop(1.0, 0), example=batch(0)[0])
    before = model[0].weight.detach().clone()
    train(model, optimizer, 1)
    bound = 20**-0.5
    assert (model[0].weight != before).all()
    assert 0.95 * bound < model[0].weight.abs().max() <= bound * 1.0001


def test_blocked_layers_are_listed_and_the_others_served() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(20, 8), nn.ReLU(), orthogonal(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5)
    )
    plastic = regrow.attach(model, torch.optim.Adam(model.parameters()), "cbp", example=batch(0)[0])
    assert [group.name for group in plastic.groups] == ["4"]
    reason = "2.weight is computed by Orthogonal, through which single weights cannot be set"
    assert plastic.unserved == {"0": reason, "2": reason, "6": "the network returns it"}


def test_the_optimizer_must_hold_all_originals() -> None:
    model = mlp()
    held = [value for name, value in model.named_parameters() if name != "2.parametrizations.weight.original0"]
    optimizer = torch.optim.Adam([*held, nn.Parameter(torch.ones(1))])
    with pytest.raises(regrow.RegrowError, match="0: the optimizer does not hold 2.parametrizations.weight.original0"):
        regrow.attach(model, optimizer, "cbp", example=batch(0)[0])


def test_a_parametrization_that_was_taken_off_is_noticed() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regrow.attach(model, optimizer, regrow.ContinualBackprop(0.5, 0), example=batch(0)[0])
    train(model, optimizer, 1)
    parametrize.remove_parametrizations(model[2], "weight")
    with pytest.raises(regrow.RegrowError, match=r"2.weight is not the parameter that it was at attach\(\)"):
        train(model, optimizer, 1)


def test_gradients_of_computed_weights_are_not_there_to_rank_by() -> None:
    model = mlp()
    with pytest.raises(regrow.RegrowError, match="2.weight is computed by a parametrization, so it has no gradient"):
        regrow.attach(
            model, torch.optim.SGD(model.parameters(), lr=0.1), regrow.ContinualBackprop(utility_rule="first_order"),
            example=batch(0)[0],
        )  # fmt: skip


def test_resume_is_bit_identical() -> None:
    def start(seed: int) -> tuple[nn.Sequential, torch.optim.Optimizer]:
        model = mlp(seed=seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        regrow.attach(model, optimizer, regrow.ContinualBackprop(0.02, 5), example=batch(0)[0], seed=seed)
        return model, optimizer

    model, optimizer = start(0)
    train(model, optimizer, 40)
    saved = pickle.loads(pickle.dumps((model.state_dict(), optimizer.state_dict())))
    train(model, optimizer, 40, start=40)
    resumed, again = start(1)
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    train(resumed, again, 40, start=40)
    assert same(model, resumed)


def test_copies_are_free_of_it() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(0.5, 0), example=batch(0)[0])
    twin = copy.deepcopy(model)
    before = copy.deepcopy(twin)
    train(model, optimizer, 2)
    twin(batch(0)[0])
    assert plastic.events and same(twin, before)


def test_magnitudes_are_those_of_the_weights_that_are_used() -> None:
    model, plain = mlp(), mlp()
    for module in plain:
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
    with torch.no_grad():  # the same weights, from other originals
        model[0].parametrizations.weight.original1.mul_(5)
    found, expected = regrow.measure(model, batch(0, 64)[0]), regrow.measure(plain, batch(0, 64)[0])
    assert found.groups.keys() == expected.groups.keys()
    for name, figures in expected.groups.items():
        assert found.groups[name] == pytest.approx(figures, rel=1e-4)
    assert found.network == pytest.approx(expected.network, rel=1e-4)
