import polars as pl

from regrow.report import growing
from regrow.report.view import view_of


def table(values: dict[str, list[list[float]]], classes: tuple[int, ...] = (5, 10, 15, 20)) -> pl.DataFrame:
    """Accuracies [seeds][tasks] of each method."""
    return pl.DataFrame(
        [
            {
                "study": "incremental-cifar",
                "scale": "laptop",
                "method": method,
                "seed": seed,
                "task": task,
                "classes": classes[task],
                "test_accuracy": accuracy,
                "dormant": 0.1 * task,
            }
            for method, runs in values.items()
            for seed, run in enumerate(runs)
            for task, accuracy in enumerate(run)
        ]
    )


RETRAINED = [[0.9, 0.8, 0.7, 0.6], [0.8, 0.7, 0.6, 0.5]]
BASE = [[0.9, 0.8, 0.66, 0.54], [0.8, 0.7, 0.55, 0.45]]


def test_what_counts_is_the_distance_from_the_retrained_network_with_the_same_seed() -> None:
    said = growing.sentence(table({"base": BASE, "retrained": RETRAINED}))
    assert said == (
        "Tasks have ever more classes, so a fall of test accuracy alone says nothing; in the last 2 of 4 tasks, points "
        "above or below the retrained network: base −5.0 (−5.0 to −5.0), dormant units 0 → 30 %."
    )


def test_seeds_that_only_one_of_both_has_are_left_out() -> None:
    said = growing.sentence(table({"base": BASE[:1], "retrained": RETRAINED}))
    assert "base −5.0, one seed, dormant" in said


def test_of_a_method_that_has_done_fewer_tasks_it_says_how_many() -> None:
    said = growing.sentence(table({"base": [[0.9, 0.7]], "cbp": BASE, "retrained": RETRAINED}))
    assert "base −10.0, one seed of its first 2 tasks, dormant" in said and "−5.0 (−5.0 to −5.0), dormant" in said


def test_without_the_retrained_network_it_says_what_is_missing() -> None:
    for runs in ({"base": BASE}, {"retrained": RETRAINED}):
        assert growing.sentence(table(runs)).endswith(
            "alone says nothing: run retrained with the same seeds, to which the others can be compared."
        )


def test_it_is_chosen_where_tasks_grow_and_only_there() -> None:
    assert view_of(table({"base": BASE})).sentence is growing.sentence
    assert view_of(table({"base": BASE}, classes=(2, 2, 2, 2))).sentence is not growing.sentence
    assert view_of(table({"base": BASE}).drop("classes")).sentence is not growing.sentence
