"""The extract_text command, as a user runs it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import speechfeat as sf
from speechfeat import doctor, extract
from speechfeat.extract_text import main
from tests.families.text import TEXTS

COUNT = 40


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    path = tmp_path / "sentences.tsv"
    rows = [f"s{number:02d}\t{TEXTS[number % len(TEXTS)]} {number}\tt{number % 3}" for number in range(COUNT)]
    path.write_text("\n".join(["id\ttext\ttopic", *rows]))
    return path


def command(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "speechfeat.extract_text", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: object) -> tuple[int, str, str]:
    process = command(*arguments)
    output, errors = process.communicate(timeout=600)
    assert "Traceback" not in errors, errors
    return process.returncode, output, errors


def files(store: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (store / "shards").iterdir()}


def test_texts_become_a_store(sentences: Path, text_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, output, errors = run(sentences, "-o", out, "-m", text_checkpoint, "--store-dtype", "float32", "--json")
    assert code == 0, errors
    summary = json.loads(output)
    assert summary["done"] == COUNT
    assert summary["tokens"] > COUNT
    assert "hours" not in summary
    assert "tokens/s" in errors
    store = sf.Store(out)
    texts = [line.split("\t")[1] for line in sentences.read_text().split("\n")[1:]]
    encoder = sf.load_text_encoder(text_checkpoint)
    for key, text, expected in zip(store.ids, texts, encoder.encode(texts), strict=True):
        found = store.frames(key)
        assert np.abs(found.values - expected.values).max() < 1e-5 * expected.values.std()
        assert found.tokens == expected.tokens
        assert np.array_equal(found.offsets, expected.offsets)
        assert text[slice(*found.offsets[1])].lower().startswith(found.tokens[1])
    assert np.allclose(store.embeddings()[1], encoder.embed(texts), atol=1e-5)
    table = store.table()
    assert table["text"].tolist() == texts
    assert table["topic"].tolist()[:3] == ["t0", "t1", "t2"]


def test_the_store_reads_without_speechfeat(sentences: Path, text_checkpoint: Path, tmp_path: Path) -> None:
    assert main([str(sentences), "-o", str(tmp_path / "out"), "-m", str(text_checkpoint), "-q"]) == 0
    (file,) = (tmp_path / "out" / "shards").glob("*.parquet")
    row = pd.read_parquet(file).set_index("id").loc["s01"]
    assert row["tokens"].tolist()[:2] == ["<s>", "a"]
    assert np.stack(row["offsets"]).shape == (row["num_frames"], 2)


def test_kill_and_resume_equal_an_undisturbed_run(sentences: Path, text_checkpoint: Path, tmp_path: Path) -> None:
    arguments = (sentences, "-m", text_checkpoint, "--batch-size", "3", "-q")
    assert run(*arguments, "-o", tmp_path / "whole")[0] == 0
    for wait in (0.0, 0.05):
        process = command(*arguments, "-o", tmp_path / "killed")
        deadline = time.monotonic() + 300
        while not (tmp_path / "killed" / "store.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait)
        process.kill()
        process.communicate()
    code, _, errors = run(*arguments, "-o", tmp_path / "killed")
    assert code == 0, errors
    assert files(tmp_path / "whole") == files(tmp_path / "killed")


def test_a_changed_text_is_noticed_and_new_ones_are_done(
    sentences: Path, text_checkpoint: Path, tmp_path: Path
) -> None:
    arguments = [str(sentences), "-o", str(tmp_path / "out"), "-m", str(text_checkpoint), "-q", "--no-frames"]
    assert main(arguments) == 0
    before = sentences.read_text()
    sentences.write_text(before + "\nnew\tthe cat\tt0")
    assert main(arguments) == 0
    assert len(sf.Store(tmp_path / "out")) == COUNT + 1
    sentences.write_text(before.replace("mat. 0", "mat. 7"))
    with pytest.raises(sf.StoreError, match=r"1 inputs differ in text .*'s00'"):
        main(arguments)


def test_shards_open_as_one(sentences: Path, text_checkpoint: Path, tmp_path: Path) -> None:
    common = [str(sentences), "-m", str(text_checkpoint), "-q", "--dtype", "float32", "-o"]
    for part in ("1/2", "2/2"):
        assert main([*common, str(tmp_path / "parts"), "--shard", part]) == 0
    assert main([*common, str(tmp_path / "whole")]) == 0
    parts, whole = sf.Store(tmp_path / "parts"), sf.Store(tmp_path / "whole")
    assert parts.ids == whole.ids
    assert np.allclose(parts.embeddings()[1], whole.embeddings()[1], atol=1e-5)


def test_odd_texts_are_done_or_explained(text_checkpoint: Path, tmp_path: Path) -> None:
    odd = [
        b"",
        b"\xf0\x9f\x98\x80\xf0\x9f\x98\x80",
        "the אבג cat דה".encode(),
        b"a \x00 cat",
        b"\xff bad",
        b"%s cat " % (b"x" * 199) * 5000,
    ]
    (tmp_path / "odd.txt").write_bytes(b"\n".join(odd))
    code, output, errors = run(tmp_path / "odd.txt", "-o", tmp_path / "out", "-m", text_checkpoint, "--json", "-q")
    assert code == 3, errors
    assert json.loads(output)["done"] == 4
    store = sf.Store(tmp_path / "out")
    reasons = {failure["id"]: failure["reason"] for failure in store.errors()}
    assert list(reasons) == ["00000001", "00000005"]
    assert "empty" in reasons["00000001"]
    assert "UTF-8" in reasons["00000005"]
    long = store.frames("00000006")
    assert long.flags == ("chunked",)
    assert long.num_frames == 10_002  # a word of 199 letters is one unknown token
    assert long.offsets[-2].tolist() == [1_019_996, 1_019_999]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_odd_cells_of_tables_are_done_or_explained(suffix: str, text_checkpoint: Path, tmp_path: Path) -> None:
    texts = {"emoji": "😀🎉", "empty": "", "mixed": "אב a cat, דה the", "nul": "a\0cat", "only": "\0", "spaces": " "}
    rows = [{"id": id, "text": text} for id, text in texts.items()]
    source = tmp_path / f"odd.{suffix}"
    if suffix == "csv":
        pd.DataFrame(rows).to_csv(source, index=False)
    else:
        source.write_text("\n".join(map(json.dumps, [*rows, {"id": "half", "text": "\ud83d"}])))
    code, _, errors = run(source, "-o", tmp_path / "out", "-m", text_checkpoint, "-q")
    assert code == 3, errors
    store = sf.Store(tmp_path / "out")
    reasons = {failure["id"]: failure["reason"] for failure in store.errors()}
    failed = {"empty", "spaces"} | ({"half"} if suffix == "jsonl" else set())
    assert set(reasons) == failed
    assert set(store.ids) == set(texts) - failed
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert store.frames("mixed").num_frames == 2 + 8


def test_a_hundred_thousand_tokens_are_done_whole_or_cut_on_request(text_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("the cat " * 50_000)
    common = [str(tmp_path / "long.txt"), "-m", str(text_checkpoint), "-q", "-o"]
    assert main([*common, str(tmp_path / "whole")]) == 0
    whole = sf.Store(tmp_path / "whole").frames("00000001")
    assert (whole.num_frames, whole.flags) == (100_002, ("chunked",))
    assert main([*common, str(tmp_path / "cut"), "--truncate"]) == 0
    cut = sf.Store(tmp_path / "cut").frames("00000001")
    assert (cut.num_frames, cut.flags) == (64, ("truncated",))


def test_the_doctor_measures_texts(text_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([str(text_checkpoint), "--text", "-l", "last", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["invariance"]["worst"] < 1e-5
    assert found["tokens_per_second"]["float32"] > 0
    assert doctor.main([str(text_checkpoint), "--text"]) == 0
    assert "tokens/s" in capsys.readouterr().out
    with pytest.raises(sf.ParameterError, match="for encoders of recordings"):
        doctor.main([str(text_checkpoint), "--text", "--audio", "a.wav"])


def test_speech_and_text_join_by_id(corpus: Path, text_checkpoint: Path, tmp_path: Path) -> None:
    paths = sorted(path.relative_to(corpus) for path in corpus.rglob("*.flac"))
    soundfile.write(corpus / "untold.flac", np.full(8000, 0.1), 16000)
    rows = [f"{path}\tthe cat {number}" for number, path in enumerate(paths)] + ["untold.flac\t"]
    manifest = corpus / "list.tsv"
    manifest.write_text("\n".join(["path\tsentence", *rows]))
    assert extract.main([str(manifest), "-o", str(tmp_path / "speech"), "-m", "logmel", "-q"]) == 0
    text = [str(manifest), "-o", str(tmp_path / "text"), "-m", str(text_checkpoint), "-q", "--skip-empty"]
    assert main(text) == 0
    speech, words = sf.Store(tmp_path / "speech"), sf.Store(tmp_path / "text")
    assert set(speech.ids) - set(words.ids) == {"untold.flac"}
    ids, vectors = words.embeddings()
    assert speech.embeddings(ids)[0] == ids
    assert vectors.shape == (12, 32)


def test_listing_and_dry_run(
    sentences: Path, text_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--list-models"]) == 0
    assert "all-MiniLM-L6-v2" in capsys.readouterr().out
    assert main(["--list-layers", str(text_checkpoint)]) == 0
    output = capsys.readouterr().out
    assert "penultimate" in output
    assert "windows of 64 tokens" in output
    arguments = [str(sentences), "-o", str(tmp_path / "out"), "-m", str(text_checkpoint), "--dry-run", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["utterances"] == COUNT
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.txt"], "no such input: 'nowhere.txt'"),
        (["--text-column", "words"], "no column 'words'"),
        (["-m", "all-minilm-l6"], "did you mean 'all-MiniLM-L6-v2'"),
        (["--pool", "median"], "pool='median' is not known.*last_token"),
        (["--window", "65"], "window=65 is above the 64 positions"),
        (["--window", "5"], r"overlap=2 must be in \[2, 2\)"),
        (["--overlap", "61"], r"overlap=61 must be in \[2, 61\)"),
        (["--window", "0"], "window=0 must be a number above 0"),
        (["--batch-tokens", "-1"], "batch_tokens=-1"),
        (["--pool", "none", "--no-frames"], "would store nothing"),
        (["-l", "7"], "layer 7 is outside"),
    ],
)
def test_bad_calls_get_one_sentence(
    arguments: list[str], message: str, sentences: Path, text_checkpoint: Path, tmp_path: Path
) -> None:
    source = [] if arguments[0].startswith("nowhere") else [str(sentences)]
    given = ["-m", str(text_checkpoint), *arguments]
    with pytest.raises(sf.SpeechfeatError, match=message) as caught:
        main([*source, *given, "-o", str(tmp_path / "out")])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_its_tokenizer_is_explained(
    text_checkpoint: Path, sentences: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((text_checkpoint / name).read_bytes())
    # Transformers makes a tokenizer without a vocabulary then.
    with pytest.raises(sf.ModelError, match="tokenizer has 5 tokens where the model has 74"):
        main([str(sentences), "-o", str(tmp_path / "out"), "-m", str(tmp_path)])


def test_a_speech_checkpoint_is_no_text_encoder(checkpoint: Path, sentences: Path, tmp_path: Path) -> None:
    with pytest.raises(sf.ModelError, match="'wav2vec2' model, which is no text encoder"):
        main([str(sentences), "-o", str(tmp_path / "out"), "-m", str(checkpoint)])


def test_one_liner(sentences: Path, text_checkpoint: Path) -> None:
    ids, vectors = sf.embed_texts(sentences, text_checkpoint, dtype="float32")
    assert (len(ids), vectors.shape) == (COUNT, (COUNT, 32))
    sentences.write_text(sentences.read_text() + "\nempty\t\tt0")
    with pytest.warns(UserWarning, match="1 texts failed and are left out, the first is empty"):
        assert sf.embed_texts(sentences, text_checkpoint, dtype="float32")[0] == ids
    sentences.write_text("text\tn\n\t1")
    with pytest.raises(sf.TextError, match="none of 1 texts could be done"):
        sf.embed_texts(sentences, text_checkpoint)


def test_the_python_api_gives_the_same_store(sentences: Path, text_checkpoint: Path, tmp_path: Path) -> None:
    encoder = sf.load_text_encoder(text_checkpoint, "0,last")
    options = {"pool": "cls", "store_dtype": "float32"}
    store = sf.extract_text_features(sentences, tmp_path / "out", encoder, **options)  # type: ignore[arg-type]
    ids, vectors = store.embeddings()
    assert vectors.shape == (COUNT, 2, 32)
    assert np.allclose(vectors[0], store.frames(ids[0]).values[:, 0], atol=1e-6)
