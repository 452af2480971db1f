"""Figures as data.  `page` draws them as HTML, `pictures` as PNG; neither computes anything.

Every figure has a title and a text alternative (`alt`) that says the same in a sentence.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Bar:
    """One bar: what is, the target, and the band of pure chance (None where there is none)."""

    label: str
    value: float
    target: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def outside(self) -> bool:
        """Whether the value lies outside the band of chance."""
        return (self.low is not None and self.value < self.low) or (self.high is not None and self.value > self.high)


@dataclasses.dataclass(frozen=True, slots=True)
class BarChart:
    """Horizontal bars; `mark` says what the vertical line of a bar's target means."""

    id: str
    title: str
    alt: str
    bars: tuple[Bar, ...]
    unit: str = "件"
    mark: str = "目標"


@dataclasses.dataclass(frozen=True, slots=True)
class HeatGrid:
    """Counts over two ordered or named axes, with expected counts and standardised residuals."""

    id: str
    title: str
    alt: str
    row_title: str
    column_title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    expected: tuple[tuple[float, ...], ...]
    residuals: tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """How values of one group spread: quantiles 10, 25, 50, 75, 90 %."""

    label: str
    group: str
    quantiles: tuple[float, float, float, float, float]
    n: int


@dataclasses.dataclass(frozen=True, slots=True)
class SpreadChart:
    """Box-like ranges, one a line, coloured by group; `low` and `high` shade a target."""

    id: str
    title: str
    alt: str
    spreads: tuple[Spread, ...]
    unit: str = "文字"
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One line of a line chart."""

    name: str
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class LineChart:
    """Lines over ordered steps; `goal` is a horizontal mark."""

    id: str
    title: str
    alt: str
    steps: tuple[str, ...]
    lines: tuple[Line, ...]
    goal: float | None = None
    unit: str = "件"


@dataclasses.dataclass(frozen=True, slots=True)
class Coloring:
    """One way to colour the points of a map: the names of the groups, and a group number a point."""

    key: str
    title: str
    groups: tuple[str, ...]
    codes: tuple[int, ...]
    ordered: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Area:
    """A named area of the map: where its label stands and its typical words."""

    x: float
    y: float
    words: tuple[str, ...]
    n: int


@dataclasses.dataclass(frozen=True, slots=True)
class MapChart:
    """The meaning map.  Coordinates lie in 0..1; `texts` are shown on hover.

    `density` counts dialogues in a grid of `cells` × `cells`, row by row from the bottom, where not all are drawn.
    `fresh` tells a map that was laid out for this report from one that was put onto a frozen map.
    """

    id: str
    title: str
    alt: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    ids: tuple[str, ...]
    heads: tuple[str, ...]
    texts: tuple[str, ...]
    colorings: tuple[Coloring, ...]
    areas: tuple[Area, ...]
    density: tuple[int, ...] = ()
    cells: int = 0
    fresh: bool = True

    @property
    def places(self) -> dict[str, tuple[float, float]]:
        """Where each dialogue lies, by id."""
        return {name: (x, y) for name, x, y in zip(self.ids, self.x, self.y, strict=True)}


Figure = BarChart | HeatGrid | SpreadChart | LineChart | MapChart
