from regrow.experiments.run import run
from regrow.experiments.store import RunFolder
from regrow.studies.hard_and_easy import HardAndEasyStudy


def test_all_tasks_have_about_as_many_steps_as_published():
    problem = HardAndEasyStudy().scale("kumar-2023").problem
    steps = [
        epochs * -(-classes * 500 // problem["batch"])
        for epochs, classes in zip(problem["epochs_in_turn"], (problem["hard"], problem["easy"]), strict=True)
    ]
    assert steps == [790, 784]  # whole epochs nearest to 780
    assert problem["tasks"] // 2 * (problem["hard"] + problem["easy"]) <= problem["classes"]


def test_every_arm_runs(tmp_path, process_settings):
    study, found = HardAndEasyStudy(), {}
    for spec in study.specs("smoke", seeds=[0]):
        rows = []
        run(RunFolder.create(tmp_path, spec), rows.append)
        assert [row["task"] for row in rows] == [0, 1, 2]
        assert all(0 <= row["test_accuracy"] <= 1 for row in rows)
        found[spec.method] = rows
    assert set(found) == {"backprop", "cbp", "l2", "l2-init", "shrink-and-perturb", "full-reset"}
    assert found["cbp"][-1]["replacements"] > 0
    # A network that begins anew learns the single class of an easy task; one that knows five others does not so soon.
    assert found["full-reset"][1]["online_accuracy"] > found["backprop"][1]["online_accuracy"]
