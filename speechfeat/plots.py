"""Pictures of results: confusions, error trade-offs, layers, embeddings, mixes.

Every function writes a picture in the format of the file's suffix (png, svg, pdf) and returns the figure, for a
notebook or for more of the caller's own. Figures are made without pyplot: no display is needed, threads share no state.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from speechfeat.errors import ParameterError
from speechfeat.metrics import DetCurve, as_numbers
from speechfeat.probing import LayerScore
from speechfeat.spotting import SpottingCurve
from speechfeat.store_config import disk_errors

DPI = 120
# Numbers in the cells of a confusion matrix are readable up to so many classes, names along its sides up to so many.
MOST_NUMBERED, MOST_NAMED = 24, 80
# Colours that can be told apart: the strong ones of tab20, then their pale companions, without its greys. Of more
# labels the rarer ones are drawn grey.
_TAB20 = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
COLOURS = tuple(_TAB20[index] for index in (*range(0, 20, 2), *range(1, 20, 2)) if index not in (14, 15))
GREY = (0.8, 0.8, 0.8)
# t-SNE of so many points takes about ten seconds.
MOST_POINTS = 2000
# Noise directions slow t-SNE down and blur it; its authors keep so many principal components.
PRINCIPAL = 50
# Points of a training's losses, each the mean of several steps where there are more.
MOST_LOSSES = 200
RATES = (0.0001, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9)

File = str | os.PathLike[str]


def plot_confusion(matrix: pd.DataFrame, file: File) -> Figure:
    """A confusion matrix, coloured by the share of each row.

    Args:
        matrix: as `confusion_matrix` gives it, counts or shares: a row a label, a column an answer.
        file: to write.

    Raises:
        ParameterError: if it has no cell, a cell is below 0 or no number, or the suffix of the file is not known.
        StoreError: if the disk refuses.
    """
    values = as_numbers("matrix", matrix).astype(np.float64)
    if not values.size or values.min() < 0:
        raise ParameterError(f"the confusion matrix {values.shape} must have cells, each 0 or more")
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1e-12)
    side = float(np.clip(2.5 + 0.4 * max(values.shape), 4, 16))
    figure, axes = _figure(side * 1.15, side)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the label", format=PercentFormatter(1), shrink=0.8)
    axes.set(xlabel=matrix.columns.name or "answer", ylabel=matrix.index.name or "label")
    for axis, names in ((axes.xaxis, matrix.columns), (axes.yaxis, matrix.index)):
        named = [str(name) for name in names] if len(names) <= MOST_NAMED else []
        axis.set_ticks(range(len(named)), named, parse_math=False, fontsize=8)
    axes.tick_params("x", rotation=90 if len(matrix.columns) > 5 else 0)
    if max(values.shape) <= MOST_NUMBERED:
        _number_cells(axes, values, shares)
    return _save(figure, file)


def _number_cells(axes: Axes, values: np.ndarray, shares: np.ndarray) -> None:
    are_counts = np.array_equal(values, values.round())
    for (row, column), value in np.ndenumerate(values):
        text = f"{value:.0f}" if are_counts else f"{value:.2f}"
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def plot_det(curves: Mapping[str, DetCurve], file: File) -> Figure:
    """Detection error trade-off: misses against false alarms on probit axes, with the points of equal error.

    On these axes, of Martin et al., "The DET curve in assessment of detection task performance" (Eurospeech 1997),
    scores that are normal distributions give straight lines.

    Args:
        curves: from `det_curve`, by the name to show.
        file: to write.

    Raises:
        ParameterError: if there is no curve, or the suffix of the file is not known.
        StoreError: if the disk refuses.
    """
    _check_some("curve", curves)
    errors = {name: curve.equal_error_rate() for name, curve in curves.items()}
    lowest = RATES[0] if min(errors.values()) < 0.01 else RATES[1]
    highest = 0.6 if max(errors.values()) < 0.4 else 0.95
    figure, axes = _figure(6.5, 6.5)
    handles = []
    for index, (name, curve) in enumerate(curves.items()):
        # A rate of 0 is infinitely far away: the line is to leave the picture towards it.
        points = (np.clip(rate, RATES[0] / 10, 1 - RATES[0] / 10) for rate in (curve.false_alarm, curve.miss))
        handles += axes.plot(*points, color=_colour(index))
        axes.plot(errors[name], errors[name], "o", color=_colour(index))
    axes.axline((0.1, 0.1), (0.2, 0.2), color=GREY, linewidth=1, zorder=0)
    ticks = [rate for rate in RATES if lowest <= rate <= highest]
    axes.set_xscale("function", functions=(ndtri, ndtr))
    axes.set_yscale("function", functions=(ndtri, ndtr))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{100 * rate:g}" for rate in ticks])
        axis.set_ticks([], minor=True)
    axes.set(xlabel="false alarms (%)", ylabel="misses (%)", aspect="equal")
    axes.set(xlim=(lowest, highest), ylim=(lowest, highest))
    axes.grid(color=GREY, linewidth=0.5)
    _legend(axes, handles, [f"{name}: EER {100 * rate:.1f} %" for name, rate in errors.items()])
    return _save(figure, file)


def plot_layers(
    curves: Mapping[str, tuple[Sequence[int], Sequence[LayerScore]]], file: File, metric: str = "accuracy"
) -> Figure:
    """Scores over the layers of an encoder, with their intervals as bands.

    Args:
        curves: numbers of the layers and a score each, as `probe_layers` gives them, by the name to show.
        file: to write.
        metric: what the scores are.

    Raises:
        ParameterError: if there is no curve, one has no layer or not one score a layer, or the suffix of the file is
            not known.
        StoreError: if the disk refuses.
    """
    _check_some("curve", curves)
    figure, axes = _figure(7, 4.5)
    handles = []
    for index, (name, (layers, scores)) in enumerate(curves.items()):
        if not len(layers) or len(layers) != len(scores):
            raise ParameterError(f"{name!r} has {len(layers)} layers and {len(scores)} scores; give one score a layer")
        score, low, high = 100 * np.asarray(scores, np.float64).T
        handles += axes.plot(layers, score, "o-", color=_colour(index), markersize=4)
        if len(layers) > 1:
            axes.fill_between(layers, low, high, color=_colour(index), alpha=0.2, linewidth=0)
        else:  # a front end without blocks; a band of one layer would not be seen
            axes.errorbar(layers, score, [score - low, high - score], color=_colour(index), capsize=3)
    numbers = [layer for layers, _ in curves.values() for layer in layers]
    axes.set(xlabel="layer", ylabel=f"{metric} (%)", xlim=(min(numbers) - 0.5, max(numbers) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color=GREY, linewidth=0.5)
    _legend(axes, handles, list(curves))
    return _save(figure, file)


def plot_embeddings(
    embeddings: np.ndarray,
    labels: ArrayLike,
    file: File,
    method: str = "tsne",
    *,
    groups: ArrayLike | None = None,
    names: tuple[str, str] = ("label", "group"),
    seed: int = 0,
) -> Figure:
    """Embeddings in the plane, coloured by label; at most 2,000 of them, drawn at random.

    Dimensions are standardised first. Of more than 18 labels the most frequent 18 have a colour.

    Args:
        embeddings: `[n, D]`.
        labels: `[n]`.
        file: to write.
        method: "tsne" (van der Maaten and Hinton, 2008), which keeps neighbours together, or "pca", the two directions
            of the largest variance.
        groups: `[n]`, such as speakers, to colour the same points by in a second panel.
        names: what labels and groups are.
        seed: of the drawing of points, and of t-SNE.

    Raises:
        ParameterError: if shapes do not agree, the method is not known, there are fewer than 3 embeddings or 2
            dimensions, they are all alike, or the suffix of the file is not known.
        StoreError: if the disk refuses.
    """
    values = as_numbers("embeddings", embeddings)
    shown = {names[0]: labels} if groups is None else {names[0]: labels, names[1]: groups}
    colourings = {name: np.array([str(one) for one in np.atleast_1d(each)], object) for name, each in shown.items()}
    if values.ndim != 2 or values.shape[0] < 3 or values.shape[1] < 2:
        raise ParameterError(f"embeddings {values.shape} must be [n, D] with n of 3 or more and D of 2 or more")
    if any(len(each) != len(values) for each in colourings.values()):
        raise ParameterError(f"{len(values)} embeddings need as many labels and groups")
    kept = np.sort(np.random.default_rng(seed).permutation(len(values))[:MOST_POINTS])
    points = _to_plane(values[kept], method, seed)
    figure, all_axes = _figure(6.5 * len(colourings), 5.5, len(colourings))
    for axes, (name, each) in zip(np.atleast_1d(all_axes), colourings.items(), strict=True):
        _scatter(axes, points, each[kept], name)
    return _save(figure, file)


def _to_plane(values: np.ndarray, method: str, seed: int) -> np.ndarray:
    if method not in ("tsne", "pca"):
        raise ParameterError(f"method={method!r} is not known; use tsne or pca")
    if (values == values[0]).all():
        raise ParameterError(f"all of {len(values)} embeddings are alike; there is nothing to see")
    num = 2 if method == "pca" else min(PRINCIPAL, *values.shape)
    components = PCA(num, random_state=seed).fit_transform(StandardScaler().fit_transform(values))
    if method == "pca":
        return components
    # The perplexity is a number of neighbours: few points have few.
    perplexity = min(30.0, (len(values) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(components)


def _scatter(axes: Axes, points: np.ndarray, labels: np.ndarray, name: str) -> None:
    counts = pd.Series(labels).value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
    coloured = sorted(counts.index[: len(COLOURS)])
    others = ~np.isin(labels, coloured)
    shown = [(label, labels == label, _colour(index)) for index, label in enumerate(coloured)]
    if others.any():
        # The last of the legend, and below all others in the picture.
        shown.append((f"{len(counts) - len(coloured)} others", others, GREY))
    handles: list[Any] = []
    for _, rows, colour in shown:
        x, y = points[rows].T
        handles.append(axes.scatter(x, y, s=12, color=colour, zorder=1 if colour == GREY else 2))
    texts = [label for label, _, _ in shown]
    axes.set(xticks=[], yticks=[])
    axes.set_title(name, parse_math=False)
    _legend(axes, handles, texts, beside=True)


def plot_mix(layers: Sequence[int], weights: ArrayLike, file: File) -> Figure:
    """The weights that a head learnt to mix the layers of an encoder by.

    Args:
        layers: their numbers.
        weights: of each, as shares.
        file: to write.

    Raises:
        ParameterError: if there is not one weight a layer, or the suffix of the file is not known.
        StoreError: if the disk refuses.
    """
    values = as_numbers("weights", weights)
    if not len(layers) or values.shape != (len(layers),):
        raise ParameterError(f"{len(layers)} layers and weights {values.shape}; give one weight a layer")
    figure, axes = _figure(7, 4)
    axes.bar(layers, 100 * values, color=_colour(0))
    axes.axhline(100 / len(layers), color="black", linewidth=0.8, linestyle="--")
    axes.set(xlabel="layer", ylabel="weight (%)", xticks=layers)
    return _save(figure, file)


def plot_spotting(curves: Mapping[str, SpottingCurve], file: File, *, most: float = 10.0) -> Figure:
    """Keywords that were missed against false alarms per hour.

    Args:
        curves: from `false_rejection_curve`, by keyword.
        file: to write.
        most: false alarms per hour that are drawn up to.

    Raises:
        ParameterError: if there is no curve, `most` is not above 0, or the suffix of the file is not known.
        StoreError: if the disk refuses.
    """
    _check_some("curve", curves)
    if not 0 < most < np.inf:
        raise ParameterError(f"most={most} must be false alarms per hour above 0")
    figure, axes = _figure(7, 4.5)
    handles = []
    for index, curve in enumerate(curves.values()):
        # To the right of a threshold the next one is not reached yet, and after the last there is none: steps.
        alarms = np.append(curve.false_alarms_per_hour, max(most, curve.false_alarms_per_hour[-1]))
        missed = 100 * np.append(curve.false_rejection, curve.false_rejection[-1])
        handles += axes.plot(alarms, missed, color=_colour(index), drawstyle="steps-post")
    axes.set(xlabel="false alarms per hour", ylabel="keywords missed (%)", xlim=(0, most), ylim=(-2, 102))
    axes.grid(color=GREY, linewidth=0.5)
    _legend(axes, handles, list(curves), beside=len(curves) > 6)
    return _save(figure, file)


def plot_training(rows: Sequence[Mapping[str, Any]], metric: str, file: File) -> Figure:
    """The loss of a training over its steps, smoothed, and the validation score.

    Args:
        rows: with step, loss and score, the last two None where there is none.
        metric: what the scores are.
        file: to write.

    Raises:
        ParameterError: if there is no row, or the suffix of the file is not known.
        StoreError: if the disk refuses.
    """
    losses = np.array([(row["step"], row["loss"]) for row in rows if row["loss"] is not None], np.float64)
    scores = np.array([(row["step"], row["score"]) for row in rows if row["score"] is not None], np.float64)
    if not len(losses):
        raise ParameterError(f"none of {len(rows)} rows has a loss to draw")
    figure, axes = _figure(7, 4.5)
    points = [part.mean(axis=0) for part in np.array_split(losses, min(len(losses), MOST_LOSSES))]
    handles, names = axes.plot(*np.array(points).T, color=_colour(0)), ["loss"]
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(color=GREY, linewidth=0.5)
    if len(scores):
        right = axes.twinx()
        handles += right.plot(scores[:, 0], 100 * scores[:, 1], "o-", color=_colour(1), markersize=4)
        right.set(ylabel=f"{metric} (%)")
        names.append(metric)
    _legend(axes, handles, names)
    return _save(figure, file)


def _check_some(what: str, given: Mapping[str, Any]) -> None:
    if not given:
        raise ParameterError(f"there is no {what} to draw; give one or more, by name")


def _colour(index: int) -> Any:
    return COLOURS[index % len(COLOURS)]


def _figure(width: float, height: float, num_columns: int = 1) -> tuple[Figure, Any]:
    figure = Figure((width, height), layout="constrained")
    return figure, figure.subplots(1, num_columns)


def _legend(axes: Axes, handles: Sequence[Any], names: Sequence[str], *, beside: bool = False) -> None:
    """A legend of names as they are: matplotlib would drop one that begins with "_" and set what is between "$"."""
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if beside else {"loc": "best"}
    legend = axes.legend(handles, [" "] * len(names), fontsize=8, **place)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def _save(figure: Figure, file: File) -> Figure:
    with disk_errors(f"write {os.fspath(file)}"), warnings.catch_warnings():
        # Scripts that no font here has are drawn as boxes.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        try:
            figure.savefig(Path(file), dpi=DPI)
        except ValueError as error:  # matplotlib's own sentence lists the formats
            if "is not supported" not in str(error):
                raise
            raise ParameterError(f"{os.fspath(file)!r} cannot be drawn: {error}") from error
    return figure
