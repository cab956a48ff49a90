from regrow.report.appearance import colours, in_order, label


def test_the_usual_methods_come_first_in_their_usual_order():
    assert in_order(["zeta", "l2", "alpha", "cbp", "backprop"]) == ["backprop", "cbp", "l2", "alpha", "zeta"]


def test_a_usual_method_has_one_colour_in_any_company():
    assert colours(["cbp"])["cbp"] == colours(["alpha", "cbp", "backprop"])["cbp"]


def test_colours_differ():
    methods = [
        "backprop", "cbp", "l2", "shrink-and-perturb", "random-replacement", "a", "b", "c", "d", "e", "f",
    ]  # fmt: skip
    assert len(set(colours(iter(methods)).values())) == 11


def test_more_methods_than_colours_still_get_one():
    assert len(colours([f"method {number}" for number in range(20)])) == 20


def test_labels():
    assert label("cbp") == "Continual backprop"
    assert label("my method") == "my method"
