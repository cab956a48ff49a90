import re
from html.parser import HTMLParser

import polars as pl
import pytest

from regrow.errors import StateError
from regrow.report.page import write_report
from regrow.report.summary import sentence

VOID = {"meta", "br"}


class Outline(HTMLParser):
    """Checks that elements close in order, and keeps the text and the addresses that a browser would load."""

    def __init__(self):
        super().__init__()
        self.open, self.words, self.loads = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value[0] != "#"]

    def handle_startendtag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value[0] != "#"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def read(path):
    outline = Outline()
    outline.feed(path.read_text(encoding="utf-8"))
    assert outline.open == []
    return outline, re.sub(r"\s+", " ", " ".join(outline.words))


SPEC = {"network": "64–64–10 <ReLU>", "step_size": 0.01, "hyperparameters": {"cbp": {"replacement_rate": 1e-4}}}


def test_the_page_says_what_was_seen_and_how_it_was_made(tmp_path, curves):
    study = curves()
    picture, page = write_report(tmp_path, study, SPEC, "regrow run permuted-digits --seeds 5", caption="A & B.")
    assert (picture, page) == (tmp_path / "figure.png", tmp_path / "report.html")
    assert picture.read_bytes().startswith(b"\x89PNG")
    outline, text = read(page)
    assert sentence(study) in text
    for words in (
        "Permuted digits, smoke scale",
        "Last 20 tasks (%)",
        "regrow run permuted-digits --seeds 5",
        "network 64–64–10 <ReLU>",
        "step size 0.01",
        "hyperparameters: cbp replacement rate 0.0001",
        "methods Backprop, Continual backprop, L2",
        "seeds 0, 1, 2, 3, 4",
        "engine fused",
        "Python 3.",
    ):
        assert words in text
    assert "Incomplete" not in text


def test_the_page_loads_nothing(tmp_path, curves):
    _, page = write_report(tmp_path, curves(tasks=5), {}, "regrow run")
    outline, _ = read(page)
    assert outline.loads == []
    source = page.read_text(encoding="utf-8")
    assert "<script" not in source and "@import" not in source and "url(http" not in source
    assert source.count("<svg") == 1 and "prefers-color-scheme: dark" in source and "@media print" in source


def test_text_from_outside_is_escaped(tmp_path, curves):
    study = curves(methods=["<b>"], tasks=3)
    _, page = write_report(tmp_path, study, {"<i>": "<u>"}, "run <s>", title="A <em> & B", caption="<q>")
    source = page.read_text(encoding="utf-8")
    for tag in ("<b>", "<i>", "<u>", "<s>", "<em>", "<q>"):
        assert tag not in re.sub(r"<!--.*?-->", "", source, flags=re.DOTALL)


def test_an_unfinished_study_says_so(tmp_path, begun):
    _, page = write_report(tmp_path, begun, {}, "regrow run", planned_runs=16)
    _, text = read(page)
    assert "Incomplete: 8 of 16 runs are not finished. None is of L2" in text


def test_one_run_of_one_method(tmp_path, curves):
    _, page = write_report(tmp_path, curves(methods=["cbp"], seeds=1, tasks=4).drop("scale"), {}, "regrow run")
    _, text = read(page)
    assert "With one seed nothing is sure" in text and text.strip().startswith("Permuted digits Permuted digits With")


def test_the_same_curves_give_the_same_files(tmp_path, curves):
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths = write_report(tmp_path / name, curves(tasks=5), SPEC, "regrow run")
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]


def test_nothing_is_written_when_there_is_nothing_to_report(tmp_path):
    with pytest.raises(StateError, match="nothing to report yet"):
        write_report(tmp_path, pl.DataFrame(), {}, "regrow run")
    assert list(tmp_path.iterdir()) == []
