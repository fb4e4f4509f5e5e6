"""A saved head is the head: in another process, for any labels, and never by pickle."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import speechfeat as sf
from speechfeat.heads.base import HEAD_JSON, TENSORS
from speechfeat.heads.estimators import POOLED_KINDS
from tests.embedded import WORDS, write_embeddings

# Nothing to be searched: it is quick.
FIXED = {
    "logistic": {"C": 0.1},
    "svm": {"C": 0.1, "class_weight": "balanced"},
    "lda": {"shrinkage": "auto"},
    "knn": {"n_neighbors": 3, "metric": "cosine"},
    "prototype": {"metric": "euclidean"},
    "mlp": {"alpha": 1.0, "max_iter": 5, "hidden_layer_sizes": (8, 4)},
}
LOAD_ALL = """
import sys, pathlib, numpy as np, speechfeat as sf
top, store = pathlib.Path(sys.argv[1]), sf.Store(sys.argv[2])
np.savez(top / "found.npz", **{folder.name: sf.load_head(folder).probabilities(store) for folder in top.glob("*-*")})
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> sf.Store:
    return write_embeddings(tmp_path_factory.mktemp("train") / "s")


@pytest.fixture
def saved(store: sf.Store, tmp_path: Path) -> Path:
    """The directory of a head."""
    sf.train_head(store, "word", "logistic", layers=2, C=0.01).save(tmp_path / "head")
    return tmp_path / "head"


def test_every_kind_predicts_the_same_in_a_new_process(store: sf.Store, tmp_path: Path) -> None:
    expected = {}
    for kind in POOLED_KINDS:
        for labels in ("word", [word == WORDS[0] for word in store.table()["word"]]):  # three classes, and two
            head = sf.train_head(store, labels, kind, **FIXED[kind])
            name = f"{kind}-{len(head.classes)}"
            head.save(tmp_path / "heads" / name)
            expected[name] = head.probabilities(store)
    path = tmp_path / "heads"
    subprocess.run([sys.executable, "-c", LOAD_ALL, str(path), str(store._paths[0])], check=True)
    with np.load(path / "found.npz") as found:
        assert len(expected) == len(found.files) == 12
        for name, shares in expected.items():
            # Some processors add up in another order what lies elsewhere in memory.
            np.testing.assert_allclose(found[name], shares, rtol=1e-12, err_msg=name)


def test_the_record_and_odd_labels_come_back(store: sf.Store, tmp_path: Path) -> None:
    head = sf.train_head(store, "word", "svm", groups="speaker", layers="auto")
    head.score(uar=0.9)
    head.save(tmp_path / "head")
    found = sf.load_head(tmp_path / "head")
    assert found.classes == sorted(WORDS) and set(found.predict(store)["label"]) == set(WORDS)
    assert json.dumps(vars(found.record), default=vars) == json.dumps(vars(head.record), default=vars)
    assert found.record.scores == {"uar": 0.9}
    assert sorted(file.name for file in (tmp_path / "head").iterdir()) == [HEAD_JSON, TENSORS]
    found.save(tmp_path / "again")
    assert (tmp_path / "again" / TENSORS).read_bytes() == (tmp_path / "head" / TENSORS).read_bytes()


def test_what_is_there_is_not_written_over(store: sf.Store, saved: Path) -> None:
    other = sf.train_head(store, "speaker", "prototype", layers=4)
    with pytest.raises(sf.ParameterError, match="is there already; give another path, or overwrite it"):
        other.save(saved)
    other.save(saved, overwrite=True)
    assert sf.load_head(saved).record.task == "speaker"
    (saved / HEAD_JSON).unlink()
    with pytest.raises(sf.ParameterError, match="and no head"):
        other.save(saved, overwrite=True)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"weights": "cd", "model": "small"}, "features of 'tiny', and .* is of 'small' .*weights 'ab' and 'cd'"),
        ({"layers": [0, 4]}, "takes layer 2 of 'tiny', and .* has 0, 4; extract with -l 2"),
        ({"pool": "max"}, "takes 'mean' embeddings and .* has 'max'; extract with --pool mean"),
    ],
)
def test_other_features_are_refused(saved: Path, tmp_path: Path, other: dict, message: str) -> None:
    store = write_embeddings(tmp_path / "other", **other)
    with pytest.raises(sf.ParameterError, match=message):
        sf.load_head(saved).predict(store)


def test_a_layer_is_found_among_others(store: sf.Store, saved: Path, tmp_path: Path) -> None:
    single = write_embeddings(tmp_path / "single", [2], seed=3)
    several = write_embeddings(tmp_path / "several", [4, 2], seed=3)
    head = sf.load_head(saved)
    assert head.probabilities(single).shape == head.probabilities(several).shape == (72, 3)
    values = several.embeddings()[1][:, 1:]
    assert np.array_equal(head.probabilities(several), head.answer(values))


def edit(folder: Path, change) -> None:
    record = json.loads((folder / HEAD_JSON).read_text())
    change(record)
    (folder / HEAD_JSON).write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record["options"]["pipeline"][1].update({"class": "system"}), "KeyError: 'system'"),
        (lambda record: record["options"]["pipeline"][0].update({"dims": 5}), "damaged"),
        (lambda record: record["options"].pop("pipeline"), "damaged"),
        (lambda record: record.update(classes=["a", "b"]), "tells 3 classes, its record has 1 layers and 2 classes"),
        (lambda record: record["binding"].update(layers=[0, 1, 2, 3]), "takes 6 dimensions.* 4 layers"),
        (lambda record: record["binding"].update(layers=[]), "its record has 0 layers"),
        (lambda record: record.update(kind="logistik"), "unknown kind of head 'logistik'; did you mean 'logistic'"),
        (lambda record: record.update(format=99), "format 99"),
    ],
)
def test_a_damaged_record_is_told(saved: Path, change, message: str) -> None:
    edit(saved, change)
    with pytest.raises(sf.ModelError, match=message):
        sf.load_head(saved)


def test_damaged_arrays_are_told(saved: Path) -> None:
    whole = (saved / TENSORS).read_bytes()
    for content in (whole[:-8], whole[:50], b""):
        (saved / TENSORS).write_bytes(content)
        with pytest.raises(sf.ModelError, match="damaged"):
            sf.load_head(saved)
    (saved / TENSORS).write_bytes(whole)
    arrays = load_file(saved / TENSORS)
    for change in ({"1.coef_": arrays["1.coef_"][:, :4]}, {"1.coef_": arrays["1.coef_"][:2]}):
        save_file({**arrays, **change}, saved / TENSORS)
        with pytest.raises(sf.ModelError, match="damaged"):
            sf.load_head(saved)
    save_file({name: value for name, value in arrays.items() if name != "0.mean_"}, saved / TENSORS)
    with pytest.raises(sf.ModelError, match="mean_"):
        sf.load_head(saved)


def test_no_head_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(sf.ModelError, match=r"no head: it has no head\.json"):
            sf.load_head(path)
