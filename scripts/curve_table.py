"""Learning curves as markdown, as csv and as a picture, and what one head gives against another."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray

from dyhead_det.evaluation.bootstrap import interval
from dyhead_det.files import written_whole
from dyhead_det.tables import markdown_table
from grid_runs import SCORES, Measured


class Point(NamedTuple):
    """What a run is."""

    detector: str
    head: str
    steps: int
    seed: int


@dataclass(frozen=True)
class Difference:
    """What a head gives against the first one, with the same seeds.

    ap: by seed.
    over_images: 95 % interval of the mean over seeds, over resampled images.
    over_all: the same over resampled images and resampled seeds.
    """

    ap: dict[int, float]
    over_images: tuple[float, float]
    over_all: tuple[float, float]

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(np.mean(list(self.ap.values())))


@dataclass(frozen=True)
class Curves:
    """All the runs that are finished.

    heads: names; the first is what the others are compared with.
    measured: what each run has shown.
    resampled: its AP on resampled images, the same ones for all runs, (R,).
    """

    heads: tuple[str, ...]
    measured: Mapping[Point, Measured]
    resampled: Mapping[Point, NDArray[np.float64]]

    def detectors(self) -> list[str]:
        """Return the detectors in the order they were asked for."""
        return list(dict.fromkeys(point.detector for point in self.measured))

    def budgets(self, detector: str, head: str) -> list[int]:
        """Return the numbers of steps of a head's runs."""
        return sorted({p.steps for p in self.measured if (p.detector, p.head) == (detector, head)})

    def seeds(self, detector: str, head: str, steps: int) -> list[int]:
        """Return the seeds of a head's runs of a length."""
        return sorted(p.seed for p in self.measured if p[:3] == (detector, head, steps))

    def aps(self, detector: str, head: str, steps: int) -> list[float]:
        """Return AP by seed."""
        return [
            self.measured[Point(detector, head, steps, seed)].scores["AP"] or 0.0
            for seed in self.seeds(detector, head, steps)
        ]

    def seconds(self, detector: str, head: str, steps: int) -> float:
        """Return the time of so many steps of a head: CPU time where it is known of all runs."""
        runs = [m for p, m in self.measured.items() if (p.detector, p.head) == (detector, head)]
        cpu = [run.cpu_seconds_per_step for run in runs if run.cpu_seconds_per_step is not None]
        per_step = cpu if len(cpu) == len(runs) else [run.seconds_per_step for run in runs]
        return steps * float(np.median(per_step))

    def at_equal_steps(self, detector: str, head: str, steps: int) -> Difference | None:
        """Compare with the first head after as many steps; None without a common seed."""
        return self._difference(detector, head, {steps: 1.0}, steps)

    def at_equal_time(self, detector: str, head: str, steps: int) -> Difference | None:
        """Compare with the first head of so many steps at the time that these take.

        The head's AP at that time lies on the line between its two nearest budgets, over the
        logarithm of time; None where it is outside of them.
        """
        target = np.log(self.seconds(detector, self.heads[0], steps))
        budgets = self.budgets(detector, head)
        times = [np.log(self.seconds(detector, head, budget)) for budget in budgets]
        for (shorter, t0), (longer, t1) in zip(
            zip(budgets, times, strict=True), zip(budgets[1:], times[1:], strict=True), strict=False
        ):
            if t0 <= target <= t1:
                share = float((target - t0) / (t1 - t0))
                return self._difference(detector, head, {shorter: 1 - share, longer: share}, steps)
        return None

    def _difference(
        self, detector: str, head: str, weights: Mapping[int, float], steps: int
    ) -> Difference | None:
        """Compare a weighted mean over a head's budgets with the first head after some steps."""
        common = set(self.seeds(detector, self.heads[0], steps))
        for budget in weights:
            common &= set(self.seeds(detector, head, budget))
        if not common:
            return None
        seeds = sorted(common)
        ap, resampled = {}, []
        for seed in seeds:
            baseline = Point(detector, self.heads[0], steps, seed)
            ap[seed] = -(self.measured[baseline].scores["AP"] or 0.0)
            change = -self.resampled[baseline]
            for budget, weight in weights.items():
                point = Point(detector, head, budget, seed)
                ap[seed] += weight * (self.measured[point].scores["AP"] or 0.0)
                change = change + weight * self.resampled[point]
            resampled.append(change)
        changes = np.stack(resampled)  # (seeds, R)
        drawn = np.random.default_rng(0).integers(len(seeds), size=changes.shape)
        of_drawn_seeds = np.take_along_axis(changes, drawn, axis=0).mean(axis=0)
        return Difference(ap, interval(changes.mean(axis=0)), interval(of_drawn_seeds))


def markdown(curves: Curves) -> list[str]:
    """Format the two tables: what each head reaches, and what it gives against the first one."""
    reached: list[list[str]] = []
    for detector in curves.detectors():
        for head in curves.heads:
            for steps in curves.budgets(detector, head):
                seeds = curves.seeds(detector, head, steps)
                aps = curves.aps(detector, head, steps)
                ap50 = [
                    curves.measured[Point(detector, head, steps, seed)].scores["AP50"] or 0.0
                    for seed in seeds
                ]
                cells = [
                    detector,
                    head,
                    str(steps),
                    ", ".join(map(str, seeds)),
                    f"{np.mean(aps):.3f} ({min(aps):.3f} - {max(aps):.3f})",
                    f"{np.mean(ap50):.3f}",
                    f"{curves.seconds(detector, head, steps):.0f}",
                ]
                reached.append(cells)
    given: list[list[str]] = []
    for detector in curves.detectors():
        for head in curves.heads[1:]:
            for steps in curves.budgets(detector, curves.heads[0]):
                given += comparison(curves, detector, head, steps)
    header = ("detector", "head", "steps", "seeds", "AP", "AP50", "seconds")
    of_differences = (
        *("detector", f"head against {curves.heads[0]}", "steps", "difference of AP by seed"),
        *("mean", "95 %, images", "95 %, images and seeds"),
        *("at equal time", "95 %, images and seeds"),
    )
    return [
        *markdown_table(header, reached, escape=str).splitlines(),
        "",
        *markdown_table(of_differences, given, escape=str).splitlines(),
    ]


def comparison(curves: Curves, detector: str, head: str, steps: int) -> list[list[str]]:
    """Return the row of what a head gives; nothing where there is nothing to compare."""
    by_steps = curves.at_equal_steps(detector, head, steps)
    by_time = curves.at_equal_time(detector, head, steps)
    if by_steps is None and by_time is None:
        return []
    cells = [detector, head, str(steps)]
    if by_steps is None:
        cells += ["-"] * 4
    else:
        cells += [
            ", ".join(f"{each:+.3f}" for each in by_steps.ap.values()),
            f"{by_steps.mean:+.3f}",
            show_interval(by_steps.over_images),
            show_interval(by_steps.over_all),
        ]
    cells += (
        ["-", "-"] if by_time is None else [f"{by_time.mean:+.3f}", show_interval(by_time.over_all)]
    )
    return [cells]


def show_interval(bounds: tuple[float, float]) -> str:
    """Format an interval."""
    return f"{bounds[0]:+.3f} .. {bounds[1]:+.3f}"


def write_csv(path: Path, curves: Curves) -> None:
    """Write one line per run, with all digits."""
    costs = ("num_parameters", "gmacs", "seconds_per_step", "cpu_seconds_per_step")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*Point._fields, *SCORES, *costs])
        for point, measured in sorted(curves.measured.items()):
            values = [*measured.scores.values(), *(getattr(measured, name) for name in costs)]
            writer.writerow([*point, *values])


def draw(path: Path, curves: Curves) -> None:
    """Draw AP over steps and over time, a row per detector: means, all seeds and their spread."""
    detectors = curves.detectors()
    figure = Figure(figsize=(10, 3.6 * len(detectors)), layout="constrained")
    grid = figure.subplots(len(detectors), 2, sharey="row", squeeze=False)
    for detector, (over_steps, over_time) in zip(detectors, grid, strict=True):
        for number, head in enumerate(curves.heads):
            budgets = curves.budgets(detector, head)
            aps = [curves.aps(detector, head, steps) for steps in budgets]
            times = [curves.seconds(detector, head, steps) for steps in budgets]
            draw_curve(over_steps, budgets, aps, f"C{number}", head)
            draw_curve(over_time, times, aps, f"C{number}", head)
        over_steps.set(xlabel="steps", ylabel=f"AP of {detector}")
        over_time.set(xlabel="seconds of training")
        over_steps.legend(frameon=False, fontsize=8)
    for axes in grid.flat:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(LogFormatter(labelOnlyBase=False))
        axes.xaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=130)


def draw_curve(
    axes: Axes, xs: Sequence[float], aps: Sequence[Sequence[float]], color: str, label: str
) -> None:
    """Draw the means as a line, the seeds as dots, and all between lowest and highest shaded."""
    axes.plot(xs, [np.mean(each) for each in aps], color=color, label=label)
    axes.fill_between(xs, [min(a) for a in aps], [max(a) for a in aps], color=color, alpha=0.15)
    for x, of_seeds in zip(xs, aps, strict=True):
        axes.plot([x] * len(of_seeds), of_seeds, "o", color=color, markersize=3)
