"""The scikit-learn transformer."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import speechfeat as sf

# Checks of scikit-learn that do not apply, and why.
EXPECTED = {"check_transformer_preserve_dtypes": "embeddings are float32 whatever the samples are"}


@parametrize_with_checks([sf.SpeechFeatures("logmel")], expected_failed_checks=lambda _: EXPECTED)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def test_in_a_pipeline_with_paths(corpus: Path) -> None:
    paths = sorted(str(path) for path in corpus.rglob("*.flac"))
    labels = [Path(path).parent.name for path in paths]
    pipeline = make_pipeline(sf.SpeechFeatures("logmel", pool="mean+std"), LogisticRegression())
    assert pipeline.fit(paths, labels).predict(paths[:2]).shape == (2,)
    assert sf.SpeechFeatures("logmel").fit_transform(paths).shape == (12, 80)


def test_clones_and_pickles_open_their_own_encoder(corpus: Path) -> None:
    paths = sorted(str(path) for path in corpus.rglob("*.flac"))[:2]
    features = sf.SpeechFeatures("logmel").fit(paths)
    expected = features.transform(paths)
    opened = clone(sf.SpeechFeatures(sf.load_encoder("logmel")))
    for other in (clone(features), pickle.loads(pickle.dumps(features)), opened):
        assert np.array_equal(other.transform(paths), expected)


def test_one_path_is_refused() -> None:
    with pytest.raises(sf.ParameterError, match="one path"):
        sf.SpeechFeatures("logmel").fit("a.wav")
