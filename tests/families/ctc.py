"""Tiny recognisers of every architecture with a CTC head, and tokenizers for them."""

import json
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.families.case import seeded
from tests.families.spectral import FAST, LASR, W2V_BERT
from tests.families.waveform import TINY

LETTERS = "'ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "|")
NUM_LETTERS = len(SPECIAL) + len(LETTERS)
# Pieces of words with a mark of what begins one, and the blank behind all of them, as Parakeet has it.
PIECES = ("<unk>", *(f"▁{letter}" for letter in "abcdeghorwy"), *"abcdeghoruwy", "▁how", "▁are", "<pad>")


def letter_tokenizer(folder: Path) -> Any:
    """As wav2vec 2.0 has it: upper case, a class between words."""
    (folder / "vocab.json").write_text(json.dumps({name: at for at, name in enumerate([*SPECIAL, *LETTERS])}))
    return transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), word_delimiter_token="|")


def piece_tokenizer() -> Any:
    """As Parakeet has it: lower case, pieces of words."""
    vocabulary = {name: at for at, name in enumerate(PIECES)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", continuing_subword_prefix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")


def recognisers() -> dict[str, tuple[str, dict[str, Any], Any]]:
    """Class of transformers, configuration and feature extractor, by name."""
    stable = {**TINY, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
    samples = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    waveform = {
        "Wav2Vec2": {**TINY, "feat_extract_norm": "group"},
        "Hubert": stable,
        "WavLM": stable,
        "UniSpeech": stable,
        "UniSpeechSat": stable,
        "Data2VecAudio": {**TINY, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 7},
        "Wav2Vec2Conformer": {**TINY, "position_embeddings_type": "relative"},
    }
    sizes = {"vocab_size": NUM_LETTERS, "pad_token_id": 0}
    found = {name: (f"{name}ForCTC", {**config, **sizes}, samples) for name, config in waveform.items()}
    found["w2v-BERT"] = (
        "Wav2Vec2BertForCTC",
        {**W2V_BERT, **sizes, "position_embeddings_type": "relative_key"},
        transformers.SeamlessM4TFeatureExtractor(),
    )
    sizes = {"vocab_size": len(PIECES), "pad_token_id": len(PIECES) - 1}
    found["Parakeet"] = ("ParakeetForCTC", {"encoder_config": FAST, **sizes}, transformers.ParakeetFeatureExtractor())
    found["LASR"] = ("LasrForCTC", {"encoder_config": LASR, **sizes}, transformers.LasrFeatureExtractor())
    return found


def make(name: str) -> tuple[Any, Any]:
    """A seeded recogniser and its feature extractor."""
    model_class, config, extractor = recognisers()[name]
    found = getattr(transformers, model_class)
    return seeded(found, found.config_class(**config)), extractor


def tokenizer_of(name: str, folder: Path) -> Any:
    """The tokenizer of a recogniser."""
    return piece_tokenizer() if name in ("Parakeet", "LASR") else letter_tokenizer(folder)
