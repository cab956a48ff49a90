"""What all courses keep: how far they have come, and rows in order."""

import pytest

import regrow.studies  # noqa: F401  registers them
from regrow.experiments.study import study_named


@pytest.mark.parametrize(
    ("study", "scale", "method"),
    [
        ("permuted-digits", "smoke", "cbp"),
        ("permuted-mnist", "smoke", "dropout"),
        ("bit-flipping", "smoke", "l2"),
        ("continual-imagenet", "smoke", "cbp"),
        ("incremental-cifar", "smoke", "base"),
        ("slippery-ant", "smoke", "cbp"),
    ],
)
def test_progress_goes_from_nothing_to_all_and_never_back(study, scale, method, process_settings):
    """An estimate divides by it, and a row ends a task."""
    (spec,) = study_named(study).specs(scale, range(1), [method])
    course = study_named(study).course(spec)
    seen, tasks = [course.progress], []
    while len(tasks) < spec.tasks:
        piece = course.advance()
        assert piece.seconds > 0
        seen.append(course.progress)
        if piece.row is not None:
            tasks.append(piece.row["task"])
    assert tasks == list(range(spec.tasks))
    assert seen[0] == 0 and all(low < high for low, high in zip(seen, seen[1:], strict=False))
    assert seen[-1] == pytest.approx(1, abs=0.01) and max(seen[:-1]) < 1
