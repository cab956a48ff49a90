import re
from dataclasses import replace
from html.parser import HTMLParser

import polars as pl
import pytest

from regrow.errors import StateError
from regrow.experiments.counterpart import ArticlePanel, Counterpart
from regrow.report.page import section, write_collection, write_report
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
    picture, page = write_report(
        tmp_path, section(study, SPEC, "regrow run permuted-digits --seeds 5", caption="A & B.")
    )
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
    _, page = write_report(tmp_path, section(curves(tasks=5), {}, "regrow run"))
    outline, _ = read(page)
    assert outline.loads == []
    source = page.read_text(encoding="utf-8")
    assert "<script" not in source and "@import" not in source and "url(http" not in source
    assert source.count("<svg") == 1 and "prefers-color-scheme: dark" in source and "@media print" in source


def test_text_from_outside_is_escaped(tmp_path, curves):
    study = curves(methods=["<b>"], tasks=3)
    _, page = write_report(tmp_path, section(study, {"<i>": "<u>"}, "run <s>", title="A <em> & B", caption="<q>"))
    source = page.read_text(encoding="utf-8")
    for tag in ("<b>", "<i>", "<u>", "<s>", "<em>", "<q>"):
        assert tag not in re.sub(r"<!--.*?-->", "", source, flags=re.DOTALL)


def test_an_unfinished_study_says_so(tmp_path, begun):
    _, page = write_report(tmp_path, section(begun, {}, "regrow run", planned_runs=16))
    _, text = read(page)
    assert "Incomplete: 8 of 16 runs are not finished. None is of L2" in text


def test_one_run_of_one_method(tmp_path, curves):
    _, page = write_report(tmp_path, section(curves(methods=["cbp"], seeds=1, tasks=4).drop("scale"), {}, "regrow run"))
    _, text = read(page)
    assert "With one seed nothing is sure" in text and text.strip().startswith("Permuted digits Permuted digits With")


def test_the_same_curves_give_the_same_files(tmp_path, curves):
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths = write_report(tmp_path / name, section(curves(tasks=5), SPEC, "regrow run"))
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]


def test_nothing_is_written_when_there_is_nothing_to_report(tmp_path):
    with pytest.raises(StateError, match="nothing to report yet"):
        write_report(tmp_path, section(pl.DataFrame(), {}, "regrow run"))
    assert list(tmp_path.iterdir()) == []


def test_figures_of_the_article_follow_the_main_one(tmp_path, curves):
    panel = ArticlePanel("Accuracy", "accuracy", ("backprop", "cbp"), factor=100)
    there, missing = Counterpart("ED 3b", "a title", (panel,)), Counterpart("ED 9", "", (replace(panel, arms=("no",)),))
    content = section(curves(tasks=5), {}, "regrow run", counterparts=(there, missing))
    assert list(content.pictures) == ["figure.png", "figure-ed-3b.png"]
    _, page = write_report(tmp_path, content)
    assert (tmp_path / "figure-ed-3b.png").read_bytes().startswith(b"\x89PNG")
    assert page.read_text(encoding="utf-8").count("<svg") == 2


def test_of_more_methods_than_colours_the_article_s_figures_are_drawn_alone(tmp_path, curves):
    names = [f"arm {number}" for number in range(20)]
    panel = ArticlePanel("Accuracy", "accuracy", ("arm 3", "arm 4"))
    content = section(
        curves(methods=names, seeds=2, tasks=3), {}, "run", counterparts=(Counterpart("ED 2", "", (panel,)),)
    )
    assert list(content.pictures) == ["figure-ed-2.png"]
    assert list(section(curves(methods=names, seeds=2, tasks=3), {}, "run").pictures) == ["figure.png"]


def test_one_page_on_several_studies(tmp_path, curves):
    contents = [section(curves(tasks=tasks), {}, f"run {tasks}", title=f"With {tasks} tasks") for tasks in (4, 5)]
    outline, text = read(write_collection(tmp_path, contents))
    assert outline.loads == []
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [source.count(f'"#part-{number}"') for number in (1, 2, 3)] == [1, 1, 0]
    assert [source.count(f'id="part-{number}"') for number in (1, 2, 3)] == [1, 1, 0]
    for content in contents:
        assert text.count(content.seen) == 2  # at the top, and in its place
    assert "2 studies of loss of plasticity" in text and "run 4" in text and "run 5" in text


@pytest.mark.parametrize(
    ("column", "words"), [("accuracy", "judged before the network"), ("test_accuracy", "not learned")]
)
def test_it_says_on_what_the_network_was_judged(column, words, tmp_path, curves):
    study = curves(tasks=4).rename({"accuracy": column})
    assert words in section(study, {}, "run").body
