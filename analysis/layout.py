"""Coordinates for the meaning map: laid out anew, or put onto a frozen earlier map.

A fresh t-SNE turns and shuffles with every new dialogue.  So the first map is kept as a reference:
dialogues that are on it keep their place, new ones go to the mean place of their nearest neighbours in
embedding space.  Once more than half of the dialogues are new, the map is laid out anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.embedding import Floats, lay_out, sample, unit_square
from dialogue.errors import FileError

NEIGHBOURS = 5
_CELLS = 48
_BLOCK = 4_000

Place = tuple[float, float]


@dataclasses.dataclass(frozen=True, slots=True)
class ReferenceMap:
    """A frozen map: the place (0..1, 0..1) of each dialogue by its id."""

    places: Mapping[str, Place]

    def to_json(self) -> dict[str, list[float]]:
        """Plain data for a file."""
        return {key: list(place) for key, place in sorted(self.places.items())}

    @classmethod
    def from_json(cls, value: object, where: str = "map") -> ReferenceMap:
        """Read what `to_json` wrote; raises `FileError` for anything else."""
        try:
            pairs = dict(value) if isinstance(value, dict) else None
            if pairs is None:
                raise TypeError
            return cls({str(key): (float(x), float(y)) for key, (x, y) in pairs.items()})
        except (TypeError, ValueError) as error:
            raise FileError(f"{where}: is no map of the report; remove it, and a new one is made.") from error


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Which dialogues are drawn (`chosen`, indices), where (`points`, (m, 2) in 0..1), and how it came about.

    `placed` of them were put onto the frozen map; `fresh` tells a map laid out now.  `density` counts all
    dialogues in a grid of `cells` × `cells`, drawn or not; empty where all are drawn.
    """

    chosen: NDArray[np.int64]
    points: Floats
    placed: int
    fresh: bool
    density: NDArray[np.int64]
    cells: int = _CELLS


def make_layout(
    ids: Sequence[str], vectors: Floats, *, reference: ReferenceMap | None = None, seed: int = 0, most: int = 4000
) -> Layout:
    """Place dialogues on the map; at most `most` are drawn, a seeded sample if there are more."""
    known = np.array([i for i, name in enumerate(ids) if reference and name in reference.places], dtype=np.int64)
    if reference is not None and known.size >= 5 and 2 * known.size >= min(len(ids), most):
        known = known[:most]
        others = np.setdiff1d(np.arange(len(ids)), known)
        extra = others[sample(len(others), max(0, most - known.size), seed)]
        places = np.array([reference.places[ids[i]] for i in known])
        points = np.concatenate([places, _near(vectors[extra], vectors[known], places)])
        order = np.argsort(np.concatenate([known, extra]), kind="stable")
        chosen, points = np.concatenate([known, extra])[order], points[order].round(4)
        fresh, placed = False, len(extra)
    else:
        chosen, points = lay_out(vectors, seed=seed, most=most)
        points, fresh, placed = unit_square(points).round(4), True, 0
    return Layout(chosen, points, placed, fresh, _density(vectors, chosen, points))


def _near(vectors: Floats, known: Floats, places: Floats) -> Floats:
    """Mean place of the nearest known neighbours, weighted by similarity."""
    if not len(vectors):
        return np.zeros((0, 2))
    k = min(NEIGHBOURS, len(known))
    found = []
    for start in range(0, len(vectors), _BLOCK):
        similar = vectors[start : start + _BLOCK] @ known.T
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, :k]
        weights = np.maximum(np.take_along_axis(similar, nearest, axis=1), 1e-6) ** 4
        weights /= weights.sum(axis=1, keepdims=True)
        found.append((weights[:, :, None] * places[nearest]).sum(axis=1))
    return np.concatenate(found)


def _density(vectors: Floats, chosen: NDArray[np.int64], points: Floats) -> NDArray[np.int64]:
    rest = np.setdiff1d(np.arange(len(vectors)), chosen)
    if not rest.size:
        return np.zeros(0, dtype=np.int64)
    cells = [_cell(points)]
    for start in range(0, len(rest), _BLOCK):
        # One nearest neighbour is enough for a shade of grey, and keeps 100,000 dialogues to seconds.
        nearest = (vectors[rest[start : start + _BLOCK]] @ vectors[chosen].T).argmax(axis=1)
        cells.append(_cell(points[nearest]))
    return np.bincount(np.concatenate(cells), minlength=_CELLS * _CELLS)


def _cell(points: Floats) -> NDArray[np.int64]:
    grid = np.clip((points * _CELLS).astype(np.int64), 0, _CELLS - 1)
    return np.asarray(grid[:, 1] * _CELLS + grid[:, 0])
