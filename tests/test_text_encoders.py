"""The contract of every text architecture: exact in any batch, equal to transformers, long texts joined."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import speechfeat as sf
from speechfeat.encoders.text_families import TEXT_FAMILIES
from tests.families.text import SHORT_BERT, TEXT_CASES, TEXTS, TextCase, make_tokenizer, stock

TOLERANCE = 1e-5


def error(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / expected.std())


def together(encoder: Any, texts: Sequence[str]) -> list[np.ndarray]:
    """States `[L, T, D]` of texts, all in one padded batch."""
    tokens = encoder.tokenizer.tokenize(texts)
    inputs = [encoder.prepare(one.samples) for one in tokens]
    return encoder.encode_padded(inputs, [len(one.samples) for one in tokens])


def named(name: str) -> TextCase:
    return next(case for case in [*TEXT_CASES, SHORT_BERT] if case.name == name)


@pytest.fixture(params=TEXT_CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> TextCase:
    return request.param


def assert_exact(case: TextCase, **options: Any) -> None:
    encoder = case.encoder("all", **options)
    batched = together(encoder, TEXTS)
    for text, found in zip(TEXTS, batched, strict=True):
        (alone,) = together(encoder, [text])
        assert max(map(error, found, alone)) < TOLERANCE


def test_alone_equals_batched(case: TextCase) -> None:
    assert_exact(case)


@pytest.mark.gpu
def test_alone_equals_batched_on_a_gpu(case: TextCase) -> None:
    assert_exact(case, device="cuda")


def test_every_layer_equals_transformers(case: TextCase) -> None:
    model, tokenizer = case.make(), make_tokenizer(case.template)
    encoder = case.encoder("all")
    for text in TEXTS[:4]:
        (found,) = together(encoder, [text])
        expected = stock(model, tokenizer, text)
        assert len(found) == len(expected) == encoder.num_layers + 1
        assert max(map(error, found, expected)) < TOLERANCE


def test_early_stop_changes_nothing(case: TextCase) -> None:
    (everything,) = together(case.encoder("all"), TEXTS[:1])
    for index in range(len(everything)):
        (found,) = together(case.encoder(index), TEXTS[:1])
        assert error(found[0], everything[index]) < TOLERANCE


def test_every_known_architecture_has_a_case() -> None:
    whole = {"clip", "clap"}
    assert {case.model_type for case in TEXT_CASES} | whole == set(TEXT_FAMILIES)


@pytest.mark.parametrize("name", ["bert", "roberta", "clip", "clap", "t5", "albert", "deberta-v3", "gpt2", "llama"])
def test_checkpoints_of_larger_models_give_their_text_encoder(name: str, tmp_path: Path) -> None:
    case = named(name)
    model = case.make()
    whole = enclosing(model, name)
    whole.save_pretrained(tmp_path)
    make_tokenizer(case.template).save_pretrained(tmp_path)
    expected = sf.load_text_encoder(model, "all", dtype="float32", tokenizer=make_tokenizer(case.template))
    in_memory = sf.load_text_encoder(whole, "all", dtype="float32", tokenizer=make_tokenizer(case.template))
    loaded = sf.load_text_encoder(tmp_path, "all", dtype="float32")
    assert loaded.describe() == sf.load_text_encoder(tmp_path, "all", dtype="float32").describe()
    for encoder in (loaded, in_memory):
        (found,), (reference,) = (one.encode(TEXTS[:1]) for one in (encoder, expected))
        assert np.array_equal(found.values, reference.values)


def test_windows_have_the_length_that_sentence_transformers_cuts_to(text_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(text_checkpoint, tmp_path, dirs_exist_ok=True)
    settings = tmp_path / "sentence_bert_config.json"
    for length, expected in ((20, 20), (500, 64), (None, 64)):
        settings.write_text(json.dumps({"max_seq_length": length, "do_lower_case": False}))
        encoder = sf.load_text_encoder(tmp_path, dtype="float32")
        assert encoder.windows().length + encoder.tokenizer.num_special == expected
        assert encoder.windows(64).length == 62
    for content, message in (("[1]", "no JSON object"), ('{"max_seq_length": 0}', "max_seq_length=0 .* above 0")):
        settings.write_text(content)
        with pytest.raises(sf.ModelError, match=message):
            sf.load_text_encoder(tmp_path)


def enclosing(model: Any, name: str) -> Any:
    """A model with a head or another tower around the text encoder, with its weights."""
    torch.manual_seed(1)
    if name == "clip":
        vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = transformers.CLIPConfig(text_config=model.config.to_dict(), vision_config=vision, projection_dim=8)
        whole = transformers.CLIPModel(config)
        whole.text_model.load_state_dict(model.state_dict())
    elif name == "clap":
        audio = {"depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 32, "patch_embeds_hidden_size": 16}
        config = transformers.ClapConfig(text_config=model.config.to_dict(), audio_config=audio, projection_dim=16)
        whole = transformers.ClapModel(config)
        whole.text_model.load_state_dict(model.state_dict())
    elif name == "t5":
        whole = transformers.T5ForConditionalGeneration(
            transformers.T5Config(**{**model.config.to_dict(), "is_encoder_decoder": True})
        )
        whole.shared.load_state_dict(model.shared.state_dict())
        whole.encoder.load_state_dict(model.encoder.state_dict())
    else:
        masked = model.config.model_type not in ("gpt2", "llama")
        auto = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
        whole = auto.from_config(model.config)
        whole.base_model.load_state_dict(model.state_dict(), strict=False)
    return whole.eval()


def test_missing_and_foreign_weights_are_refused(text_checkpoint: Path, tmp_path: Path) -> None:
    for file in text_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(text_checkpoint / "model.safetensors")
    gone = weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(sf.ModelError, match=r"misses weights of BertModel: encoder\.layer\.1\.output"):
        sf.load_text_encoder(tmp_path)
    weights["encoder.layer.1.output.dense.weight"] = gone
    weights["encoder.layer.9.output.dense.weight"] = gone.clone()
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(sf.ModelError, match="holds unexpected weights"):
        sf.load_text_encoder(tmp_path)


def test_texts_come_back_in_order_with_their_tokens() -> None:
    encoder = named("bert").encoder()
    frames = encoder.encode(TEXTS)
    for text, found in zip(TEXTS, frames, strict=True):
        (alone,) = encoder.encode([text])
        assert found.tokens == alone.tokens
        assert found.values.shape == (len(found.tokens), encoder.dim) == (found.num_frames, 32)
        assert error(found.values, alone.values) < TOLERANCE
    # Small batches of other company make no difference.
    for found, other in zip(frames, encoder.encode(TEXTS, batch_tokens=40), strict=True):
        assert error(found.values, other.values) < TOLERANCE


def test_pooling_sees_the_texts_own_tokens() -> None:
    encoder = named("bert").encoder()
    (frames,) = encoder.encode(TEXTS[:1])
    own = frames.values[1:-1]
    for pool, expected in {
        "mean": own.mean(axis=0),
        "max": own.max(axis=0),
        "first": own[0],
        "last": own[-1],
        "mean+std": np.concatenate([own.mean(axis=0), own.std(axis=0)]),
        "cls": frames.values[0],
        "last_token": frames.values[-1],
    }.items():
        assert np.allclose(encoder.embed(TEXTS[:1], pool)[0], expected, atol=1e-5)
    whole = encoder.embed(TEXTS[:1], keep_special=True)[0]
    assert np.allclose(whole, frames.values.mean(axis=0), atol=1e-5)


def test_a_decoder_has_a_last_token_and_no_cls() -> None:
    encoder = named("gpt2").encoder("last")
    assert encoder.num_layers == 3
    assert np.allclose(encoder.embed(TEXTS, "last_token"), encoder.embed(TEXTS, "last"))
    with pytest.raises(sf.ParameterError, match="puts none there"):
        encoder.embed(TEXTS, "cls")


@pytest.mark.parametrize("name", ["bert, 64 positions", "t5", "modernbert", "llama"])
def test_long_texts_are_joined_from_windows(name: str) -> None:
    encoder = named(name).encoder(0)  # what enters the blocks: of relative positions, independent of the window
    text = " ".join(TEXTS * 9)
    (cut,) = encoder.encode([text], window=48, overlap=16)
    count = len(encoder.tokenizer.tokenize([text])[0].samples)
    assert cut.flags == ("chunked",)
    assert cut.num_frames == count + encoder.tokenizer.num_special == len(cut.tokens) == len(cut.offsets)
    assert not set(cut.tokens[1:-1]) & {"<s>", "</s>"}
    if name != "bert, 64 positions":
        (whole,) = encoder.encode([text], window=5000)
        assert whole.flags == ()
        assert np.allclose(cut.values, whole.values, atol=1e-5)


def test_windows_see_enough_context_to_be_close_to_the_whole() -> None:
    # Attention reaches 4 tokens to each side in two blocks of three and everything in the third.
    encoder = named("modernbert").encoder(1)
    text = " ".join(TEXTS * 9)
    (whole,), (cut,) = encoder.encode([text], window=5000), encoder.encode([text], window=64, overlap=32)
    assert error(cut.values, whole.values) > 0
    assert np.abs(cut.values - whole.values).mean() < 0.5 * whole.values.std()


def test_a_causal_window_gives_up_its_whole_overlap() -> None:
    # With a window that slides over 8 tokens in each of three blocks, 24 tokens before one are all it sees.
    encoder = named("mistral").encoder("last")
    text = " ".join(TEXTS * 5)
    (whole,), (cut,) = encoder.encode([text], window=5000), encoder.encode([text], window=80, overlap=30)
    assert error(cut.values[-20:], whole.values[-20:]) < TOLERANCE


def test_truncation_is_flagged() -> None:
    encoder = named("bert, 64 positions").encoder()
    text = " ".join(TEXTS * 9)
    (found, short) = encoder.encode([text, "the cat"], truncate=True)
    assert (found.num_frames, found.flags, short.flags) == (64, ("truncated",), ())
    assert found.tokens[-1] == "</s>"
    (alone,) = encoder.encode([text[: found.offsets[-2, 1]]])
    assert error(found.values, alone.values) < TOLERANCE


def test_a_text_of_100_000_tokens_is_done() -> None:
    encoder = named("bert, 64 positions").encoder(1)
    (vector,) = encoder.embed(["the cat sat. " * 25_000])
    assert np.isfinite(vector).all()


@pytest.mark.parametrize(
    ("texts", "error_class", "message"),
    [
        ("the cat", sf.ParameterError, "put it into brackets"),
        ([], sf.ParameterError, "no texts"),
        ([b"the cat"], sf.ParameterError, "of type bytes"),
        (["the cat", ""], sf.TextError, r"text 1 \(''\): the text is empty"),
    ],
)
def test_bad_texts_get_one_sentence(texts: Any, error_class: type, message: str) -> None:
    with pytest.raises(error_class, match=message):
        named("bert").encoder().encode(texts)


def test_a_token_beyond_the_models_vocabulary_is_explained() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["zebra"])
    encoder = named("bert").encoder(tokenizer=tokenizer)
    with pytest.raises(sf.TextError, match="the model has no token 74"):
        encoder.embed(["the zebra"])


def test_half_precision_is_close(text_checkpoint: Path) -> None:
    exact = sf.load_text_encoder(text_checkpoint, dtype="float32").embed(TEXTS)
    half = sf.load_text_encoder(text_checkpoint, dtype="bfloat16").embed(TEXTS)
    assert np.abs(half - exact).max() < 0.1 * exact.std()


def test_scikit_learn_pipeline(text_checkpoint: Path) -> None:
    features = sf.TextFeatures(str(text_checkpoint), layers="1,2", pool="mean+std")
    pipeline = make_pipeline(features, LogisticRegression()).fit(TEXTS, [0, 1] * 3)
    assert pipeline.predict(pd.Series(TEXTS)).shape == (6,)
    found = clone(features).fit_transform(pd.DataFrame({"text": TEXTS}))
    assert found.shape == (6, 2 * 64)
    assert len(pipeline[0].get_feature_names_out()) == 128
    with pytest.raises(sf.ParameterError, match="one text"):
        features.fit("the cat")
    with pytest.raises(sf.ParameterError, match="of strings"):
        features.fit([1, 2])


@pytest.mark.shared
def test_mini_lm_equals_mean_pooling_over_all_tokens(shared: Path) -> None:
    path = shared / "models" / "all-MiniLM-L6-v2"
    texts = [
        "Charles Curtiss functioned as Trotsky's primary link.",
        "a",
        "\U0001f600\U0001f600",
        "\u041f\u0440\u0438\u0432\u0435\u0442 אבג",
        "One was the bombing of Japanese industrial centres in the Doolittle Raid. " * 5,
    ]
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    expected = ((states * mask).sum(1) / mask.sum(1)).numpy()
    found = sf.load_text_encoder(path, "last", dtype="float32").embed(texts, keep_special=True)
    assert np.abs(found - expected).max() < 1e-5 * expected.std()
