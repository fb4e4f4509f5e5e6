"""Fitted pipelines as JSON values and arrays, and back, without pickle: only the classes listed here are ever made."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from speechfeat.errors import ModelError, ParameterError
from speechfeat.heads.classifiers import Discriminant, Prototypes, SoftmaxSVC


class _Form(NamedTuple):
    """A class, and what of a fitted one decides its probabilities.

    Other parameters do not matter after fitting, and some are named otherwise from one version of scikit-learn to the
    next.
    """

    make: type[BaseEstimator]
    params: tuple[str, ...]
    fitted: tuple[str, ...]


LINEAR = ("classes_", "coef_", "intercept_")
_FORMS = {
    form.make.__name__: form
    for form in (
        _Form(StandardScaler, (), ("mean_", "scale_")),
        _Form(LogisticRegression, ("C", "class_weight", "solver"), LINEAR),
        _Form(SoftmaxSVC, ("C", "class_weight"), (*LINEAR, "temperature_")),
        _Form(Discriminant, ("shrinkage", "class_weight"), (*LINEAR, "temperature_")),
        _Form(Prototypes, ("metric",), ("classes_", "prototypes_", "temperature_")),
        # Refitted: it is nothing but its training data.
        _Form(KNeighborsClassifier, ("n_neighbors", "weights", "metric", "p", "algorithm"), ("_fit_X", "_y")),
        _Form(
            MLPClassifier,
            ("hidden_layer_sizes", "activation", "alpha"),
            ("classes_", "coefs_", "intercepts_", "n_layers_", "n_outputs_", "out_activation_"),
        ),
    )
}


def describe_pipeline(pipeline: Pipeline) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """A fitted pipeline as JSON values, one entry a step, and arrays.

    Raises:
        ParameterError: if it holds another class, or a parameter that is no JSON value.
    """
    steps, arrays = [], {}
    for number, (name, step) in enumerate(pipeline.steps):
        form = _FORMS.get(type(step).__name__)
        if form is None or type(step) is not form.make:
            raise ParameterError(f"a {type(step).__name__} cannot be saved in a head; use {', '.join(_FORMS)}")
        values: dict[str, Any] = {}
        for attribute in form.fitted:
            value = getattr(step, attribute)
            if isinstance(value, np.ndarray):
                arrays[f"{number}.{attribute}"] = value
            elif isinstance(value, list):  # the weights of an MLP, layer by layer
                arrays |= {f"{number}.{attribute}.{index}": part for index, part in enumerate(value)}
                values[attribute] = len(value)
            else:
                values[attribute] = plain(attribute, value)
        params = {key: plain(key, getattr(step, key)) for key in form.params}
        width = int(step.n_features_in_)
        steps.append({"name": name, "class": type(step).__name__, "dims": width, "params": params, "values": values})
    return steps, arrays


def restore_pipeline(steps: Sequence[Mapping[str, Any]], arrays: Mapping[str, np.ndarray]) -> Pipeline:
    """What `describe_pipeline` was given: its probabilities are the same.

    Raises:
        ModelError: if something is missing, is of a class that is not listed here, or does not fit together.
    """
    try:
        pipeline = Pipeline([(step["name"], _restore(number, step, arrays)) for number, step in enumerate(steps)])
        pipeline.predict_proba(np.zeros((1, steps[0]["dims"]), np.float32))
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            f"this head is damaged: its classifier cannot be restored ({type(error).__name__}: {error}); train it again"
        ) from error
    return pipeline


def plain(name: str, value: Any) -> Any:
    """A JSON value.

    Raises:
        ParameterError: if it is none; `name` is for the error.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [plain(name, one) for one in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ParameterError(f"{name}={value!r} cannot be saved with a head; give a number, a name, or several of these")


def _restore(number: int, step: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> BaseEstimator:
    form = _FORMS[step["class"]]
    made = form.make(**{name: step["params"][name] for name in form.params})
    if form.make is KNeighborsClassifier:
        return made.fit(arrays[f"{number}._fit_X"], arrays[f"{number}._y"])
    made.n_features_in_ = step["dims"]
    for attribute in form.fitted:
        if f"{number}.{attribute}" in arrays:
            value: Any = arrays[f"{number}.{attribute}"]
        elif f"{number}.{attribute}.0" in arrays:
            value = [arrays[f"{number}.{attribute}.{index}"] for index in range(step["values"][attribute])]
        else:
            value = step["values"][attribute]
        setattr(made, attribute, value)
    return made
