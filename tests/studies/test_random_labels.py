import torch

from regrow.experiments.run import run
from regrow.experiments.store import RunFolder
from regrow.networks.convnet import ConvNet
from regrow.studies.random_labels import RandomLabelsStudy


def test_the_setting_is_the_published_one():
    problem = RandomLabelsStudy().scale("kumar-2023").problem
    assert problem["images"] * problem["epochs"] // problem["batch"] == 30_000  # updates of a task
    assert problem["tasks"] == 50


def test_the_networks_are_those_of_the_text():
    study = RandomLabelsStudy()
    problem = study.scale("smoke").problem
    network = study.network(problem, 0)
    weights = [tuple(parameter.shape) for parameter in network.parameters() if parameter.dim() == 2]
    assert weights == [(100, 64), (100, 100), (10, 100)]
    assert network(torch.rand(3, 1, 8, 8)).shape == (3, 10)
    assert network[1].bias.abs().min() > 0  # torch's own law
    convnet = study.network({**problem, "data": "generated-images", "network": "convnet"}, 0)
    assert isinstance(convnet, ConvNet) and convnet(torch.rand(3, 3, 32, 32)).shape == (3, 10)


def test_every_arm_runs(tmp_path, process_settings):
    study, found = RandomLabelsStudy(), {}
    for spec in study.specs("smoke", seeds=[0]):
        rows = []
        run(RunFolder.create(tmp_path, spec), rows.append)
        assert [row["task"] for row in rows] == [0, 1]
        assert all(0 < row["online_accuracy"] <= 1 for row in rows)
        found[spec.method] = rows
    assert len({tuple(row["online_accuracy"] for row in rows) for rows in found.values()}) >= 4
    assert found["cbp"][-1]["replacements"] > 0
    first = {rows[0]["test_accuracy"] for name, rows in found.items() if name in ("backprop", "full-reset")}
    assert len(first) == 1  # a reset has nothing to do in the first task
