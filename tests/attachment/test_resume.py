"""Save, load in a new process, go on: bit-identical to never having stopped."""

import subprocess
import sys

import pytest
import torch

import regrow
from regrow.methods import L2, Method, ShrinkAndPerturb
from tests.attachment.training import batch, make_network, train

pytestmark = pytest.mark.xdist_group("resume")  # one process, so that the fixture below is made once

METHODS = {
    "backprop": "regrow.Backprop()",
    "cbp": "regrow.ContinualBackprop(0.01, 5)",
    "cbp-each-step": "regrow.ContinualBackprop(0.01, 5, weight_sums='each_step')",
    "cbp-adaptable": "regrow.ContinualBackprop(0.01, 5, utility_rule='adaptable_contribution')",
    "cbp-first-order": "regrow.ContinualBackprop(0.01, 5, utility_rule='first_order')",
    "cbp-bernoulli": "regrow.ContinualBackprop(0.01, 5, budget='bernoulli')",
    "random": "regrow.RandomReplacement(0.01, 5)",
    "l2": "regrow.L2(1e-2)",
    "shrink-and-perturb": "regrow.ShrinkAndPerturb(1e-2, 1e-3, period=7)",
    "shared-noise": "regrow.ShrinkAndPerturb(1e-2, 1e-3, noise='shared')",
    "several": "[regrow.ContinualBackprop(0.01, 5), regrow.L2(1e-3), regrow.ShrinkAndPerturb(1e-3, 1e-3)]",
}
GO_ON = """
import sys, torch, regrow
from tests.attachment.training import make_network, train, batch
for case, (method, lazy) in eval(sys.argv[2]).items():
    saved = torch.load(f"{sys.argv[1]}/{case}.pt", weights_only=True)
    model = make_network(seed=9)
    model.load_state_dict(saved["model"])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    plastic = regrow.attach(model, optimizer, eval(method), example=None if lazy else batch(0)[0], seed=123)
    optimizer.load_state_dict(saved["optimizer"])
    train(model, optimizer, 150, start=150)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, f"{sys.argv[1]}/{case}.pt")
"""
# By way of finding units, which does not depend on the method: with an example for all, without one for two.
CASES = {name: (method, False) for name, method in METHODS.items()}
CASES |= {f"{name}-lazy": (METHODS[name], True) for name in ("cbp", "several")}


@pytest.fixture(scope="module")
def uninterrupted_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict, dict]]:
    """All cases, run through in this process, and saved half-way and gone on with in one other process."""
    folder = tmp_path_factory.mktemp("saved")
    through = {}
    for case, (method, _) in CASES.items():
        model = make_network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        regrow.attach(model, optimizer, eval(method), example=batch(0)[0], seed=5)
        train(model, optimizer, 150)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / f"{case}.pt")
        train(model, optimizer, 150, start=150)
        through[case] = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    subprocess.run([sys.executable, "-c", GO_ON, folder, repr(CASES)], check=True)
    return {case: (through[case], torch.load(folder / f"{case}.pt", weights_only=True)) for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_resume_in_a_new_process_is_bit_identical(case: str, uninterrupted_and_resumed) -> None:
    through, resumed = uninterrupted_and_resumed[case]
    assert _flat(resumed) == _flat(through)


def _flat(tree, path: str = "") -> dict[str, object]:
    if isinstance(tree, torch.Tensor):
        return {path: (tree.dtype, tuple(tree.shape), tree.flatten().tolist())}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else None
    if items is None:
        return {path: tree}
    return {key: value for name, child in items for key, value in _flat(child, f"{path}/{name}").items()}


def test_state_is_tensors_only_and_a_plain_optimizer_ignores_it() -> None:
    model = make_network()
    optimizer = torch.optim.Adam(model.parameters())
    regrow.attach(model, optimizer, [regrow.ContinualBackprop(0.01, 5), L2()], example=batch(0)[0])
    train(model, optimizer, 30)
    saved = optimizer.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in saved["regrow"]["0:cbp+l2"].values())

    plain = torch.optim.Adam(make_network().parameters())
    plain.load_state_dict(saved)
    assert "regrow" not in plain.state_dict()


def test_two_models_under_one_optimizer_keep_their_states_apart() -> None:
    def build():
        actor, critic = make_network(1), make_network(2)
        optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=0.01)
        both = [regrow.attach(net, optimizer, "cbp", example=batch(0)[0]) for net in (actor, critic)]
        return actor, critic, optimizer, both

    actor, critic, optimizer, both = build()
    train(torch.nn.Sequential(actor), optimizer, 20)
    saved = optimizer.state_dict()
    assert set(saved["regrow"]) == {"0:cbp", "6:cbp"}
    *networks, restored, others = build()
    restored.load_state_dict(saved)
    for network, trained in zip(networks, (actor, critic), strict=True):
        network.load_state_dict(trained.state_dict())
    for mine, theirs in zip(both, others, strict=True):
        for name in ("0", "2"):
            for key, value in mine.state_of(name).items():
                assert torch.equal(value, theirs.state_of(name)[key])


def test_a_run_saved_without_regrow_starts_it_afresh() -> None:
    model = make_network()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, 10)
    saved = optimizer.state_dict()
    again = torch.optim.Adam(model.parameters())
    plastic = regrow.attach(model, again, regrow.ContinualBackprop(0.01, 5), example=batch(0)[0])
    again.load_state_dict(saved)
    train(model, again, 50)
    assert plastic.events


def _saved_by(method: Method, width: int = 16) -> dict:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, width), torch.nn.ReLU(), torch.nn.Linear(width, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    regrow.attach(model, optimizer, method, example=batch(0)[0])
    train(model, optimizer, 3)
    return optimizer.state_dict()["regrow"][f"0:{method.name}"]


def test_a_state_of_another_method_or_model_is_refused() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 16), torch.nn.ReLU(), torch.nn.Linear(16, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(), example=batch(0)[0])
    for other in (regrow.RandomReplacement(), regrow.ContinualBackprop(0.5), ShrinkAndPerturb()):
        with pytest.raises(regrow.RegrowError, match="(?s)saved with other methods.*delete the key 'regrow'") as error:
            plastic.load_state_dict(_saved_by(other))
        assert other.name in str(error.value)
    with pytest.raises(regrow.RegrowError, match="(?s)saved with other groups.*'0': 9.*'0': 16") as error:
        plastic.load_state_dict(_saved_by(regrow.ContinualBackprop(), width=9))
    for key in ("identity", "0.0.born"):
        damaged = _saved_by(regrow.ContinualBackprop())
        del damaged[key]
        with pytest.raises(regrow.RegrowError, match=f"not whole: {key} missing"):
            plastic.load_state_dict(damaged)
    plastic.load_state_dict(_saved_by(regrow.ContinualBackprop()))
