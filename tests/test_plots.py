"""Pictures: what is drawn is what was given, whatever the names; a mistake is one sentence."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from speechfeat import plots
from speechfeat.classification import confusion_matrix
from speechfeat.errors import ParameterError, StoreError
from speechfeat.metrics import det_curve
from speechfeat.probing import LayerScore
from speechfeat.spotting import SpottingCurve

RNG = np.random.default_rng(0)
# What matplotlib would hide, set as mathematics, choke on, or has no glyphs for.
NAMES = ["_hidden", "$x", "$\\frac$", "日本語", "a, b|c", "Zoë"]


def check_picture(file: Path) -> None:
    with Image.open(file) as picture:
        assert 300 < min(picture.size) <= max(picture.size) < 2500
        assert np.asarray(picture.convert("L")).std() > 5


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_a_confusion_matrix_has_its_names_and_counts(tmp_path: Path) -> None:
    labels = RNG.choice(NAMES, 300)
    matrix = confusion_matrix(labels, np.where(RNG.random(300) < 0.7, labels, NAMES[0]))
    figure = plots.plot_confusion(matrix, tmp_path / "confusion.png")
    check_picture(tmp_path / "confusion.png")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == list(matrix.index)
    assert [text.get_text() for text in axes.get_xticklabels()] == list(matrix.columns)
    assert [int(text.get_text()) for text in axes.texts] == matrix.to_numpy().ravel().tolist()
    shares = axes.images[0].get_array()
    assert np.allclose(shares.sum(axis=1), 1)


def test_shares_are_drawn_as_shares_and_a_class_without_items_is_borne(tmp_path: Path) -> None:
    matrix = pd.DataFrame([[0.75, 0.25], [0.0, 0.0]], ["a", "b"], ["a", "b"])
    figure = plots.plot_confusion(matrix, tmp_path / "shares.svg")
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.75", "0.25", "0.00", "0.00"]
    assert (tmp_path / "shares.svg").read_text().startswith("<?xml")


def test_many_classes_are_drawn_without_numbers(tmp_path: Path) -> None:
    figure = plots.plot_confusion(pd.DataFrame(np.eye(200, dtype=int)), tmp_path / "large.png")
    check_picture(tmp_path / "large.png")
    assert not figure.axes[0].texts


def test_det_lines_are_the_error_rates_on_probit_axes(tmp_path: Path) -> None:
    labels = RNG.random(3000) < 0.3
    noise = RNG.standard_normal(3000)
    curves = {NAMES[far]: det_curve(noise + (1 + far) * labels, labels) for far in range(2)}
    figure = plots.plot_det(curves, tmp_path / "det.png")
    check_picture(tmp_path / "det.png")
    axes = figure.axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) > 100]
    for line, curve in zip(lines, curves.values(), strict=True):
        inside = (curve.false_alarm > 1e-4) & (curve.miss > 1e-4) & (curve.false_alarm < 0.99) & (curve.miss < 0.99)
        assert np.array_equal(np.asarray(line.get_xdata())[inside], curve.false_alarm[inside])
        assert np.array_equal(np.asarray(line.get_ydata())[inside], curve.miss[inside])
    points = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
    assert points == [curve.equal_error_rate() for curve in curves.values()]
    for name, text, point in zip(curves, legend(figure), points, strict=True):
        assert text == f"{name}: EER {100 * point:.1f} %"
    # On probit axes one standard deviation is as long anywhere: of 2.3 % to 15.9 % as of 15.9 % to 50 %.
    places = axes.transData.transform([[rate, rate] for rate in (0.0227501, 0.1586553, 0.5)])
    assert np.ptp(np.diff(places[:, 0])) < 0.1


def test_perfect_scores_have_a_det_picture(tmp_path: Path) -> None:
    plots.plot_det({"perfect": det_curve([3.0, 2.0, 1.0], [1, 1, 0])}, tmp_path / "perfect.png")
    check_picture(tmp_path / "perfect.png")


def test_layers_are_drawn_with_bands(tmp_path: Path) -> None:
    scores = [LayerScore(0.5 + 0.1 * layer, 0.4 + 0.1 * layer, 0.55 + 0.1 * layer) for layer in range(4)]
    curves = {NAMES[0]: (range(4), scores), "mfcc": ([0], [LayerScore(0.3, 0.2, 0.4)])}
    figure = plots.plot_layers(curves, tmp_path / "layers.png", "UAR")
    check_picture(tmp_path / "layers.png")
    axes = figure.axes[0]
    assert axes.lines[0].get_xdata().tolist() == [0, 1, 2, 3]
    assert np.allclose(axes.lines[0].get_ydata(), [50, 60, 70, 80])
    corners = axes.collections[0].get_paths()[0].get_extents()
    assert np.allclose((corners.ymin, corners.ymax), (40, 85))
    assert axes.get_ylabel() == "UAR (%)"
    assert legend(figure) == [NAMES[0], "mfcc"]
    alone = plots.plot_layers({"mfcc": curves["mfcc"]}, tmp_path / "alone.png")
    assert [tick for tick in alone.axes[0].get_xticks() if abs(tick) < 0.5] == [0]


def test_embeddings_of_one_label_lie_together(tmp_path: Path) -> None:
    labels = np.repeat(NAMES, 10)
    centres = 20 * RNG.standard_normal((6, 12))
    values = np.repeat(centres, 10, axis=0) + RNG.standard_normal((60, 12))
    for method in ("tsne", "pca"):
        figure = plots.plot_embeddings(values, labels, tmp_path / f"{method}.png", method, groups=np.arange(60) % 30)
        check_picture(tmp_path / f"{method}.png")
        first, second = figure.axes
        assert sorted(legend(figure)) == sorted(NAMES)
        clusters = [np.asarray(each.get_offsets()) for each in first.collections]
        assert sum(map(len, clusters)) == 60
        inner = max(np.ptp(each, axis=0).max() for each in clusters)
        assert inner < np.ptp(np.concatenate(clusters), axis=0).max() / 2
        assert len(second.get_legend().get_texts()) == len(plots.COLOURS) + 1
        assert second.get_legend().get_texts()[-1].get_text() == f"{30 - len(plots.COLOURS)} others"
    again = plots.plot_embeddings(values, labels, tmp_path / "again.png", "tsne")
    before = plots.plot_embeddings(values, labels, tmp_path / "before.png", "tsne")
    offsets = [[np.asarray(each.get_offsets()) for each in one.axes[0].collections] for one in (again, before)]
    assert all(np.array_equal(one, other) for one, other in zip(*offsets, strict=True))


def test_three_points_suffice_and_thousands_are_thinned(tmp_path: Path) -> None:
    values = RNG.standard_normal((3, 2))
    plots.plot_embeddings(values, ["a", "b", "a"], tmp_path / "three.png")
    check_picture(tmp_path / "three.png")
    many = RNG.standard_normal((plots.MOST_POINTS + 500, 3))
    figure = plots.plot_embeddings(many, np.arange(len(many)) % 2, tmp_path / "many.png", "pca")
    assert sum(len(each.get_offsets()) for each in figure.axes[0].collections) == plots.MOST_POINTS


def test_a_mix_is_drawn_as_bars(tmp_path: Path) -> None:
    figure = plots.plot_mix([0, 2, 4], [0.2, 0.5, 0.3], tmp_path / "mix.png")
    check_picture(tmp_path / "mix.png")
    assert np.allclose([bar.get_height() for bar in figure.axes[0].patches], [20, 50, 30])


def test_spotting_curves_are_steps_that_go_on_to_the_edge(tmp_path: Path) -> None:
    curve = SpottingCurve(np.array([np.inf, 0.9, 0.5]), np.array([0.0, 0.0, 2.0]), np.array([1.0, 0.5, 0.25]))
    figure = plots.plot_spotting(dict.fromkeys(NAMES, curve), tmp_path / "spotting.png", most=5)
    check_picture(tmp_path / "spotting.png")
    line = figure.axes[0].lines[0]
    assert line.get_drawstyle() == "steps-post"
    assert line.get_xdata().tolist() == [0, 0, 2, 5]
    assert line.get_ydata().tolist() == [100, 50, 25, 25]
    assert legend(figure) == NAMES


def test_drawing_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.plot_mix(range(3), np.full(3, 1 / 3), tmp_path / "mix.png")
        plots.plot_layers({"日本語": ([0], [LayerScore(0.5, 0.5, 0.5)])}, tmp_path / "layers.png")


def test_bad_calls_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "none.png"
    values = np.eye(4)
    refused = [
        ("no curve", lambda: plots.plot_det({}, file)),
        ("no curve", lambda: plots.plot_layers({}, file)),
        ("2 layers and 1 scores", lambda: plots.plot_layers({"a": ([0, 1], [LayerScore(1, 1, 1)])}, file)),
        ("method='umap'", lambda: plots.plot_embeddings(values, list("abcd"), file, "umap")),
        ("as many labels", lambda: plots.plot_embeddings(values, list("abc"), file)),
        ("as many labels", lambda: plots.plot_embeddings(values, "abcd", file)),
        (r"\(2, 4\)", lambda: plots.plot_embeddings(values[:2], list("ab"), file)),
        ("alike", lambda: plots.plot_embeddings(np.ones((4, 4)), list("abcd"), file)),
        ("NaN", lambda: plots.plot_embeddings(np.full((4, 4), np.nan), list("abcd"), file)),
        ("one weight a layer", lambda: plots.plot_mix([0, 1], [1.0], file)),
        ("most=0", lambda: plots.plot_spotting({"a": SpottingCurve(*np.zeros((3, 1)))}, file, most=0)),
        ("each 0 or more", lambda: plots.plot_confusion(pd.DataFrame([[-1]]), file)),
        ("'mix.xyz'|mix.xyz", lambda: plots.plot_mix([0], [1.0], tmp_path / "mix.xyz")),
    ]
    for message, call in refused:
        with pytest.raises(ParameterError, match=message):
            call()
    assert not file.exists()
    with pytest.raises(StoreError, match="cannot write"):
        plots.plot_mix([0], [1.0], tmp_path / "nowhere" / "mix.png")
