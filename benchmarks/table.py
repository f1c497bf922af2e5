"""Repetitions side by side, what is printed of them, and the targets they are held against."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.targets import Target

Sample = Mapping[str, float]
Runs = dict[str, list[Sample]]


def side_by_side(
    targets: Sequence[Target], repetitions: int, measure: Callable[[Target], Sample | None]
) -> Runs:
    """One run through each target in turn, again and again.

    What fails once cannot be relied on: no numbers for it, and none that compare with it.
    """
    tried: dict[str, list[Sample | None]] = {target.name: [] for target in targets}
    for _ in range(repetitions):
        for target in targets:
            if None not in tried[target.name]:
                tried[target.name].append(measure(target))
    return {name: [run for run in runs if run] if all(runs) else [] for name, runs in tried.items()}


@dataclass(frozen=True)
class Column:
    """The median of `key` or, `against` another target, the median of the ratios of neighbouring runs."""

    title: str
    key: str
    decimals: int = 2
    against: str = ""  # the role of the other target
    difference: bool = False

    def value(self, runs: Sequence[Sample], others: Sequence[Sample]) -> float | None:
        if not self.against:
            found = [run[self.key] for run in runs if self.key in run]
        else:
            pairs = [
                (run[self.key], other[self.key])
                for run, other in zip(runs, others, strict=False)
                if self.key in run and self.key in other
            ]
            found = [a - b if self.difference else a / b for a, b in pairs if b or self.difference]
        return statistics.median(found) if found else None


@dataclass
class Targets:
    """The best and the worst that was seen of everything the issue sets a target for. Of what repetitions say one by one,
    which no other row brings together, the median before them."""

    seen: dict[tuple[str, str], dict[str, list[float]]] = field(default_factory=dict)
    repeated: set[tuple[str, str]] = field(default_factory=set)

    def note(self, work: str, target: str, build: str, value: float | None) -> None:
        of_builds = self.seen.setdefault((work, target), {})
        if value is not None:
            of_builds.setdefault(build, []).append(value)

    def note_repetitions(self, work: str, target: str, build: str, values: Sequence[float]) -> None:
        self.repeated.add((work, target))
        for value in values:
            self.note(work, target, build, value)

    def show(self) -> str:
        builds = ["interpreted", "compiled"]
        lines = [f"| work | target | {' | '.join(builds)} |", "|---|---|---|---|"]
        for (work, target), of_builds in self.seen.items():
            cell = _median_and_range if (work, target) in self.repeated else _range
            cells = [cell(of_builds.get(build, [])) for build in builds]
            lines.append(f"| {work} | {target} | {' | '.join(cells)} |")
        return "\n".join(lines)


def _range(values: Sequence[float]) -> str:
    if not values:
        return "-"
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _median_and_range(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({_range(values)})" if len(values) > 1 else _range(values)


class Table:
    """Markdown, a row as soon as it is known."""

    def __init__(self, columns: Sequence[Column], first: str = "work") -> None:
        self._columns = columns
        print(f"\n| {first} | through | {' | '.join(column.title for column in columns)} |")
        print("|---" * (len(columns) + 2) + "|", flush=True)

    def rows(self, work: str, targets: Sequence[Target], runs: Runs, others: Sequence[Target] = ()) -> None:
        """`others` are compared with, and not shown."""
        for target in targets:
            cells = [
                _cell(
                    column,
                    column.value(runs[target.name], against(column.against, [*targets, *others], runs)),
                )
                for column in self._columns
            ]
            print(f"| {work} | {target.name} | {' | '.join(cells)} |", flush=True)


def against(role: str, targets: Sequence[Target], runs: Runs) -> Sequence[Sample]:
    return next((runs[target.name] for target in targets if target.role == role), ())


def _cell(column: Column, value: float | None) -> str:
    return "-" if value is None else f"{value:,.{column.decimals}f}"
