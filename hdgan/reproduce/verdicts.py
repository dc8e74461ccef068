"""What the seeds say about the orders that are tested."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, stdev
from typing import Literal

from scipy.stats import ttest_1samp

from hdgan.metrics.scores import TITLES
from hdgan.reproduce.plan import ROWS, Table
from hdgan.reproduce.results import Result
from hdgan.wording import count

SIGNIFICANT = 0.05
"""p-value below which a difference counts."""
Conclusion = Literal["supported", "reversed", "not decided"]


@dataclass(frozen=True)
class PairTest:
    """The test that the first of two rows is better."""

    better: str
    worse: str
    claimed: bool
    """Whether the paper puts them in this order."""
    differences: tuple[float, ...]
    """Differences of the metric, one for each seed."""
    metric: str = "miou"

    @property
    def p(self) -> float | None:
        """The p-value of a two-sided paired t-test; None for a single seed or for equal differences."""
        if len(self.differences) < 2 or stdev(self.differences) < 1e-9:
            return None
        return float(ttest_1samp(self.differences, 0).pvalue)

    @property
    def conclusion(self) -> Conclusion:
        if self.p is None or self.p >= SIGNIFICANT:
            return "not decided"
        if all(difference > 0 for difference in self.differences):
            return "supported"
        return "reversed" if all(difference < 0 for difference in self.differences) else "not decided"

    @property
    def order(self) -> str:
        """The order, and the metric if it is not mean IoU."""
        by = "" if self.metric == "miou" else f" in {TITLES[self.metric]}"
        return title((self.better, self.worse)) + by

    @property
    def text(self) -> str:
        """The order, the difference, its test and the conclusion."""
        said = _bold(self.conclusion, len(self.differences))
        line = f"{self.order}: {said}; difference {mean(self.differences):+.3f}"
        if len(self.differences) > 1:
            above = sum(difference > 0 for difference in self.differences)
            line += f" ± {stdev(self.differences):.3f}, above 0 in {above} of {len(self.differences)} seeds"
        return line + (f", p = {_shown(self.p)}" if self.p is not None else "")


@dataclass(frozen=True)
class Verdict:
    """Whether the rows of a table came out in the tested order."""

    table: Table
    metric: str
    means: dict[str, float]
    """Of the metric for each row, over the seeds that all of them have."""
    seeds: int
    pairs: tuple[PairTest, ...]
    """All pairs of the order."""

    @property
    def conclusion(self) -> Conclusion:
        """Supported if all pairs are; reversed if one pair is, since the order is then another one."""
        found = {pair.conclusion for pair in self.pairs}
        if "reversed" in found:
            return "reversed"
        return "supported" if found == {"supported"} else "not decided"

    @property
    def text(self) -> str:
        """The order, the conclusion, and the means."""
        said = _bold(self.conclusion, self.seeds)
        wrong = [title((pair.worse, pair.better)) for pair in self.pairs if pair.conclusion == "reversed"]
        if wrong and len(self.pairs) > 1:
            said += f" in {len(wrong)} of {len(self.pairs)} pairs ({', '.join(wrong)})"
        numbers = ", ".join(f"{ROWS[row].title} {self.means[row]:.3f}" for row in self.table.tested)
        over = f"seed{'s' * (self.seeds > 1)}"
        order = f"{title(self.table.tested)} in {TITLES[self.metric]}"
        return f"{order}: {said}. Means of {self.seeds} {over}: {numbers}."


def verdicts_of(table: Table, results: Sequence[Result]) -> list[Verdict]:
    """Test the order of a table by each of its metrics; nothing if it has no order, or if its rows share no seed."""
    return list(filter(None, (_verdict(table, metric, results) for metric in table.metrics)))


def _verdict(table: Table, metric: str, results: Sequence[Result]) -> Verdict | None:
    scores = {row: values(results, row, metric) for row in table.tested}
    seeds = [seed for seed in next(iter(scores.values()), ()) if all(seed in found for found in scores.values())]
    if not seeds:
        return None
    pairs = tuple(
        PairTest(
            better,
            worse,
            (better, worse) in table.claims,
            tuple(scores[better][seed] - scores[worse][seed] for seed in seeds),
            metric,
        )
        for better, worse in combinations(table.tested, 2)
    )
    means = {row: mean(scores[row][seed] for seed in seeds) for row in table.tested}
    return Verdict(table, metric, means, len(seeds), pairs)


def values(results: Sequence[Result], row: str, metric: str) -> dict[int | None, float]:
    """The values of a metric of a row by seed, where they are available."""
    own = {result.seed: result.metrics.get(metric) for result in results if result.row == row}
    return {seed: value for seed, value in own.items() if value is not None}


def title(rows: Iterable[str]) -> str:
    """Rows as an order, best first."""
    return " > ".join(ROWS[row].title for row in rows)


def _shown(p: float) -> str:
    """A p-value with enough digits to show on which side of `SIGNIFICANT` it is."""
    text = f"{p:.2g}"
    return text if (float(text) < SIGNIFICANT) == (p < SIGNIFICANT) else f"{p:.4g}"


def _bold(conclusion: Conclusion, seeds: int) -> str:
    by = f" by {count(seeds, 'seed')}" if conclusion == "not decided" else ""
    return f"**{conclusion}{by}**"
