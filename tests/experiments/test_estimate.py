"""What an estimate says, and that an arm which cannot be begun is told by name."""

import pytest

from regrow.errors import ConfigError
from regrow.experiments.estimate import Estimate, estimate
from regrow.experiments.store import RunFolder
from tests.experiments.small_study import SmallStudy

MODULE = "tests.experiments.small_study"


def test_the_text():
    found = Estimate(core_seconds=7200, longest=600, disk=3_000_000, runs=30, arms=2)
    assert found.text(10) == (
        "about 12 minutes with 10 at once (2 hours of one core, at most 10 minutes a run), 3 MB on disk; "
        "from a second of each of 2 arms"
    )


def test_what_is_done_is_left_out_and_what_is_begun_counts_in_part(tmp_path, monkeypatch):
    specs = SmallStudy().specs("none", range(2))
    monkeypatch.setattr(RunFolder, "length", lambda self: 9)
    begun = estimate(specs, MODULE, tmp_path, 1)
    assert (begun.runs, begun.arms) == (2, 1)
    assert begun.core_seconds == pytest.approx(2 * begun.longest)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(RunFolder, "state", lambda self: "done")
    assert estimate(specs, MODULE, tmp_path, 1) is None


@pytest.mark.parametrize(("fault", "why"), [("raise", "ValueError: no data today"), ("die", "BrokenProcessPool: ")])
def test_an_arm_that_cannot_be_begun_is_told_by_name(fault, why, tmp_path):
    with pytest.raises(ConfigError) as caught:
        estimate(SmallStudy().specs(fault, range(1, 2)), MODULE, tmp_path, 1)
    assert str(caught.value).startswith(f"cbp+noise could not be measured ({why}")
    assert str(caught.value).endswith("run it alone, by --methods cbp+noise --seeds 1, to see why.")
