import pytest

from regrow.experiments.study import study_named
from regrow.methods import method_named, methods_by_name
from regrow.studies import bit_flipping, permuted_digits
from regrow.studies.method_grids import GRIDS, candidates, compared

BESTS = {"permuted-digits": permuted_digits.BEST, "bit-flipping": bit_flipping.BEST}


def test_every_method_has_a_small_grid_unless_there_is_nothing_to_choose():
    assert set(methods_by_name()) - set(GRIDS) == {"backprop", "full-reset"}
    assert set(GRIDS) <= set(methods_by_name())
    assert {len(grid) for grid in GRIDS.values()} <= {2, 3, 4}


def test_candidates_are_the_defaults_and_every_setting_of_the_grids():
    found = candidates(hidden_layers=3)
    assert len(found) == len(methods_by_name()) + sum(map(len, GRIDS.values()))
    assert len(set(found.values())) == len(found)  # no setting twice, none that is the default
    assert found["l2"] == (method_named("l2"),)
    assert found["shrink-and-perturb weight_decay=0.01 noise_std=0.003"] == (
        method_named("shrink-and-perturb", weight_decay=0.01, noise_std=0.003),
    )
    assert not any("," in name for name in found)  # --methods parts names at commas


def test_a_reset_of_all_layers_is_no_candidate():
    assert set(candidates(3)) - set(candidates(1)) == {"hard-reset layers=2", "hard-reset layers=3"}


def test_what_is_compared_is_the_default_and_the_best():
    found = compared({"l2": {"strength": 0.01}, "cbp": {}})
    assert len(found) == len(methods_by_name()) + 1
    assert found["l2"] == (method_named("l2"),) and found["l2 tuned"] == (method_named("l2", strength=0.01),)


@pytest.mark.parametrize("study", BESTS)
def test_the_best_are_in_the_grids_and_chosen_on_other_seeds(study):
    assert all(not changes or changes in GRIDS[name] for name, changes in BESTS[study].items())
    reported, searched = (study_named(study).scale(name) for name in ("methods", "methods-search"))
    assert reported.problem == searched.problem
    assert len(reported.seeds) >= 10 and not set(reported.seeds) & set(searched.seeds)
    assert len(searched.seeds) == 2
