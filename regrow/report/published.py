"""The article's own curves, as far as they are known in numbers: `data/README.md` says from where."""

from importlib import resources

import polars as pl


def published_curves(panel: str) -> dict[str, pl.DataFrame]:
    """Return the curves of one panel of the article: for each arm, its columns x, value, source and note.

    Raises:
        KeyError: there is no such panel.
    """
    source = resources.files("regrow.report") / "data" / "published.csv"
    with source.open("rb") as file:
        found = pl.read_csv(file.read(), schema_overrides={"x": pl.Float64, "value": pl.Float64})
    found = found.filter(pl.col("panel") == panel)
    if found.is_empty():
        raise KeyError(panel)
    return {name: rows.drop("panel", "curve") for (name,), rows in found.group_by("curve", maintain_order=True)}
