"""The figures of a comparison.

Letters: n rows, d dimensions.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float64
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_modules.comparison.comparison import LEVEL, ComparisonResults
from lightning_modules.comparison.side import Side
from lightning_modules.figures.style import BLUE, GREY, ORANGE, SETTINGS, styled_axes

CAPTIONS: dict[str, str] = {
    "measures": "Every measure (dot, with the 95 % interval) beside what it is where there is no "
    "difference (grey: 95 % of exchanges of whole episodes), in standard deviations of that null.",
    "dimensions": "Each dimension: how far its mean lies apart, and how its spread differs. "
    "Orange: differs, corrected for all dimensions.",
    "moved": "The dimensions that differ most, as captured.",
    "sorted": "Means and standard deviations of A, sorted, and those of B at the same dimensions.",
    "correlation": "Correlations among the dimensions that differ most.",
    "pca": "Both along the two directions in which they vary most together.",
    "tsne": "t-SNE of 50 principal directions: neighbours stay together, distances mean "
    "little. Frames of one episode often make a clump of their own.",
    "umap": "UMAP of 50 principal directions: neighbours stay together, distances mean little.",
}
SHOWN = 12
FAR = 20
"""Standard deviations of the null from which on the axis is logarithmic."""
CORRELATED = 40
COLOURS = {"A": BLUE, "B": ORANGE}


def comparison_figures(
    a: Side,
    b: Side,
    results: ComparisonResults,
    points: Mapping[str, Float64[np.ndarray, "n 2"]],
) -> Iterator[tuple[str, Figure]]:
    """Yields names and figures."""
    yield "measures", draw_measures(results)
    yield "dimensions", draw_dimensions(results)
    order = clearest(results)
    yield "moved", draw_histograms(a, b, results, order[:SHOWN])
    yield "sorted", draw_sorted(results)
    if a.vectors.shape[1] > 2:
        yield "correlation", draw_correlations(a, b, order[:CORRELATED])
    for name, places in points.items():
        yield name, draw_points(name, places, len(a.keys))


def clearest(results: ComparisonResults) -> list[int]:
    """Dimensions by how clearly they differ."""
    p, t = results.dimensions["p_shift"], np.abs(results.dimensions["t"])
    return [int(place) for place in np.lexsort([-t, p])]


def draw_measures(results: ComparisonResults) -> Figure:
    """One row a measure, in the standard deviations of its null."""
    rows = results.measures
    figure, axes = styled_axes(8.6, 1.3 + 0.34 * len(rows))
    with rc_context(SETTINGS):
        for place, row in enumerate(rows):
            spread = max((row.null_high - row.null_low) / 3.92, 1e-12)
            value, low, high, start, stop = (
                (x - row.null_mean) / spread
                for x in (row.value, row.low, row.high, row.null_low, row.null_high)
            )
            found = row.p_corrected <= LEVEL
            colour = ORANGE if found else BLUE
            label = "no difference: 95 %" if place == 0 else None
            axes.plot([start, stop], [place, place], color="#d1d5db", lw=8, label=label)
            axes.plot([low, high], [place, place], color=colour, lw=1.8)
            axes.plot(value, place, "o", color=colour, ms=6)
        names = [f"{row.name}, p = {row.p_corrected:.3f}" for row in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.invert_yaxis()
        axes.axvline(0, color=GREY, lw=0.8)
        if max(map(abs, axes.get_xlim())) > FAR:
            axes.set_xscale("symlog", linthresh=FAR / 2)
            axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set_xlabel("standard deviations of the null")
        word = "A and B differ" if results.differs else "no difference found"
        axes.set_title(f"{word} (p = {results.p:.3f}, all measures together)")
        for colour, label in ((ORANGE, "found: p < 0.05, corrected"), (BLUE, "found: not clear")):
            axes.plot([], [], "o-", color=colour, ms=6, lw=1.8, label=label)
        figure.legend(loc="outside lower right", ncols=3)
    return figure


def draw_dimensions(results: ComparisonResults) -> Figure:
    """Shift against the ratio of the stds."""
    columns = results.dimensions
    shift, ratio = columns["shift"], columns["log_std_ratio"]
    found = (columns["p_shift"] <= LEVEL) | (columns["p_std"] <= LEVEL)
    figure, axes = styled_axes(6.4, 4.2)
    with rc_context(SETTINGS):
        axes.plot(shift[~found], ratio[~found], ".", color=GREY, ms=3, alpha=0.6, rasterized=True)
        axes.plot(shift[found], ratio[found], "o", color=ORANGE, ms=5)
        for place in [d for d in clearest(results) if found[d]][:8]:
            axes.annotate(
                str(place), (shift[place], ratio[place]), xytext=(4, 4),
                textcoords="offset points", fontsize=8,
            )  # fmt: skip
        axes.set_xlabel("shift of the mean, A - B (std)")
        axes.set_ylabel("log(std of A / std of B)")
        axes.set_title(f"{found.sum()} of {len(shift)} dimensions differ (p < 0.05, corrected)")
        axes.grid(color="#e5e7eb", lw=0.8)
        axes.set_axisbelow(True)
    return figure


def draw_histograms(a: Side, b: Side, results: ComparisonResults, shown: list[int]) -> Figure:
    """Both histograms of the clearest dimensions."""
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    with rc_context(SETTINGS):
        figure = Figure(figsize=(2.9 * columns, 0.6 + 2.1 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, place in zip(grid.flat, shown, strict=False):
            both = np.concatenate([a.vectors[:, place], b.vectors[:, place]]).astype(np.float64)
            low, high = np.percentile(both, [0.5, 99.5])
            edges = np.linspace(low, high if high > low else low + 1, 31)
            for side in (a, b):
                axes.hist(
                    side.vectors[:, place], bins=edges.tolist(), density=True, alpha=0.55,
                    color=COLOURS[side.name], label=side.name,
                )  # fmt: skip
            p = results.dimensions["p_shift"][place]
            axes.set_title(
                f"{place}: {results.dimensions['shift'][place]:+.2f} std, p {p:.3f}", fontsize=9
            )
            axes.set_yticks([])
        for axes in list(grid.flat)[len(shown) :]:
            axes.remove()
        figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def draw_sorted(results: ComparisonResults) -> Figure:
    """Means and stds of A sorted, B beside them."""
    with rc_context(SETTINGS):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        for axes, word, title in zip(
            figure.subplots(1, 2), ("mean", "std"), ("means", "standard deviations"), strict=True
        ):
            order = np.argsort(results.dimensions[f"{word}_a"])
            place = np.arange(len(order))
            axes.plot(
                place, results.dimensions[f"{word}_b"][order], ".", color=ORANGE, ms=2.5,
                label="B", rasterized=True,
            )  # fmt: skip
            axes.plot(place, results.dimensions[f"{word}_a"][order], color=BLUE, lw=1.8, label="A")
            axes.set_title(title)
            axes.set_xlabel("dimension, sorted by A")
            axes.legend(loc="upper left")
    return figure


def _correlation(side: Side, shown: list[int]) -> np.ndarray:
    points = side.vectors[:, shown].astype(np.float64)
    centred = points - points.mean(0)
    size = np.linalg.norm(centred, axis=0)
    scaled = centred / np.where(size > 0, size, 1)
    return scaled.T @ scaled


def draw_correlations(a: Side, b: Side, shown: list[int]) -> Figure:
    """Of A, of B, and their difference."""
    first, second = _correlation(a, shown), _correlation(b, shown)
    with rc_context(SETTINGS):
        figure = Figure(figsize=(11, 3.7), layout="constrained")
        panels: list[Axes] = list(figure.subplots(1, 3))
        images = (("A", first), ("B", second), ("A - B", first - second))
        for axes, (title, image) in zip(panels, images, strict=True):
            axes.imshow(image, cmap="RdBu_r", vmin=-1, vmax=1)
            axes.set_title(title)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        panels[0].set_ylabel(f"the {len(shown)} clearest dimensions")
        figure.colorbar(panels[0].images[0], ax=panels, shrink=0.9, label="correlation")
    return figure


def draw_points(name: str, points: Float64[np.ndarray, "n 2"], of_a: int) -> Figure:
    """Both sides' vectors as dots, in random order so that neither hides the other."""
    colour = np.array([BLUE] * of_a + [ORANGE] * (len(points) - of_a))
    order = np.random.default_rng(0).permutation(len(points))
    figure, axes = styled_axes(5.6, 4.8)
    with rc_context(SETTINGS):
        axes.scatter(
            *points[order].T, c=colour[order].tolist(), s=7, lw=0, alpha=0.7, rasterized=True
        )
        for label, side in COLOURS.items():
            axes.plot([], [], "o", color=side, label=label)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title({"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}[name])
        figure.legend(loc="outside upper right", ncols=2)
    return figure
