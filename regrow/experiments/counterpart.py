"""What of the article a study can draw as well: its figures, panel by panel."""

from dataclasses import dataclass
from typing import Literal

Spread = Literal["standard error", "bootstrap"]


@dataclass(frozen=True)
class ArticlePanel:
    """One panel, with the axes and bins of the article.

    Attributes:
        heading: what is on the y axis, and of what.
        measure: its column in the curves.
        arms: which arms, in the order of the legend.
        bin: so many tasks make one point.
        first: the first task that is shown.
        last: the task before which the panel ends; None for the last of all.
        x_label: what is on the x axis.
        x_factor: from a task's number, or the middle of a bin, to the x axis.
        x_offset: is added to that.
        limits: of the y axis, in what is shown; None if the article's do not fit.
        factor: from the column to what is shown.
        relative_to: the arm whose value with the same seed is subtracted.
        published: the panel's name in the published numbers (`report/data/published.csv`), whose curves are drawn
            beside those of the same arms; None if sizes do not match.
    """

    heading: str
    measure: str
    arms: tuple[str, ...]
    bin: int = 1
    first: int = 0
    last: int | None = None
    x_label: str = "Task"
    x_factor: float = 1.0
    x_offset: float = 0.0
    limits: tuple[float, float] | None = None
    factor: float = 1.0
    relative_to: str | None = None
    published: str | None = None


@dataclass(frozen=True)
class Counterpart:
    """One figure.

    Attributes:
        figure: its name in the article, such as "ED 3b".
        title: what it shows.
        panels: its panels.
        spread: what the article's bands are: ±1 "standard error" of the mean over seeds, or a 95 % "bootstrap" interval
            of that mean. Ours are the same.
    """

    figure: str
    title: str
    panels: tuple[ArticlePanel, ...]
    spread: Spread = "standard error"
