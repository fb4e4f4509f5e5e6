"""The table of encoders: names, where they come from, what may be done with them. Listing it needs no torch.

Any hub id or checkpoint directory works without a row: `model_type` in its `config.json` finds the family.
"""

import difflib
from pathlib import Path
from typing import NamedTuple

# Checkpoints that come with the package, and the one that every default names, so that it works offline.
EMBEDDED = Path(__file__).resolve().parents[1] / "models"
DEFAULT_MODEL = "conformer-s"


class EncoderSpec(NamedTuple):
    """A row of the catalogue.

    Attributes:
        name: what a user types.
        source: a hub id, or the prefix of a family that needs no checkpoint.
        parameters: in millions, of the encoder.
        licence: of the weights.
        paper: arXiv number of its description, or "".
    """

    name: str
    source: str
    parameters: float
    licence: str
    paper: str


# model_type of a transformers configuration -> module of speechfeat.encoders
FAMILIES = {
    "wav2vec2": "wav2vec2",
    "hubert": "wav2vec2",
    "wavlm": "wav2vec2",
    "data2vec-audio": "wav2vec2",
    "unispeech": "wav2vec2",
    "unispeech-sat": "wav2vec2",
    "sew": "wav2vec2",
    "sew-d": "wav2vec2",
    "wav2vec2-conformer": "wav2vec2",
    "whisper": "whisper",
    "voxtral": "whisper",
    "voxtral_encoder": "whisper",
    "moonshine": "moonshine",
    "moonshine_streaming": "moonshine",
    "moonshine_streaming_encoder": "moonshine",
    "speech_to_text": "speech_to_text",
    "speecht5": "speecht5",
    "audio-spectrogram-transformer": "spectrogram_transformer",
    "wav2vec2-bert": "w2v_bert",
    "seamless_m4t": "w2v_bert",
    "seamless_m4t_v2": "w2v_bert",
    "parakeet_encoder": "parakeet",
    "parakeet_ctc": "parakeet",
    "parakeet_rnnt": "parakeet",
    "parakeet_tdt": "parakeet",
    "canary": "parakeet",
    "cohere_asr": "parakeet",
    "nemotron_asr_streaming_encoder": "parakeet",
    "nemotron_asr_streaming": "parakeet",
    "nemotron3_5_asr": "parakeet",
    "lasr_encoder": "parakeet",
    "lasr_ctc": "parakeet",
}

CATALOG = (
    EncoderSpec("conformer-s", str(EMBEDDED / "conformer-s"), 7, "Apache-2.0", ""),
    EncoderSpec("wav2vec2-base", "facebook/wav2vec2-base", 95, "Apache-2.0", "2006.11477"),
    EncoderSpec("wav2vec2-large-lv60", "facebook/wav2vec2-large-lv60", 317, "Apache-2.0", "2006.11477"),
    EncoderSpec("xls-r-300m", "facebook/wav2vec2-xls-r-300m", 317, "Apache-2.0", "2111.09296"),
    EncoderSpec("mms-300m", "facebook/mms-300m", 317, "CC-BY-NC-4.0", "2305.13516"),
    EncoderSpec("hubert-base", "facebook/hubert-base-ls960", 95, "Apache-2.0", "2106.07447"),
    EncoderSpec("hubert-large", "facebook/hubert-large-ll60k", 317, "Apache-2.0", "2106.07447"),
    EncoderSpec("distilhubert", "ntu-spml/distilhubert", 23, "Apache-2.0", "2110.01900"),
    EncoderSpec("wavlm-base", "microsoft/wavlm-base", 95, "CC-BY-SA-3.0", "2110.13900"),
    EncoderSpec("wavlm-base-plus", "microsoft/wavlm-base-plus", 95, "CC-BY-SA-3.0", "2110.13900"),
    EncoderSpec("wavlm-large", "microsoft/wavlm-large", 317, "CC-BY-SA-3.0", "2110.13900"),
    EncoderSpec("data2vec-audio-base", "facebook/data2vec-audio-base", 93, "Apache-2.0", "2202.03555"),
    EncoderSpec("unispeech-sat-base", "microsoft/unispeech-sat-base", 95, "CC-BY-SA-3.0", "2110.05752"),
    EncoderSpec("sew-mid-100k", "asapp/sew-mid-100k", 79, "Apache-2.0", "2109.06870"),
    EncoderSpec("sew-d-mid-100k", "asapp/sew-d-mid-100k", 79, "Apache-2.0", "2109.06870"),
    EncoderSpec(
        "wav2vec2-conformer-rel-pos-large",
        "facebook/wav2vec2-conformer-rel-pos-large",
        593,
        "Apache-2.0",
        "2010.05171",
    ),
    EncoderSpec(
        "wav2vec2-conformer-rope-large",
        "facebook/wav2vec2-conformer-rope-large",
        593,
        "Apache-2.0",
        "2010.05171",
    ),
    EncoderSpec("whisper-tiny", "openai/whisper-tiny", 8, "Apache-2.0", "2212.04356"),
    EncoderSpec("whisper-base", "openai/whisper-base", 21, "Apache-2.0", "2212.04356"),
    EncoderSpec("whisper-small", "openai/whisper-small", 88, "Apache-2.0", "2212.04356"),
    EncoderSpec("whisper-medium", "openai/whisper-medium", 307, "Apache-2.0", "2212.04356"),
    EncoderSpec("whisper-large-v3", "openai/whisper-large-v3", 637, "Apache-2.0", "2212.04356"),
    EncoderSpec("voxtral-mini", "mistralai/Voxtral-Mini-3B-2507", 637, "Apache-2.0", "2507.13264"),
    EncoderSpec("moonshine-tiny", "UsefulSensors/moonshine-tiny", 8, "MIT", "2410.15608"),
    EncoderSpec("moonshine-base", "UsefulSensors/moonshine-base", 20, "MIT", "2410.15608"),
    EncoderSpec("ast-audioset", "MIT/ast-finetuned-audioset-10-10-0.4593", 86, "BSD-3-Clause", "2104.01778"),
    EncoderSpec("s2t-small", "facebook/s2t-small-librispeech-asr", 17, "MIT", "2010.05171"),
    EncoderSpec("speecht5-asr", "microsoft/speecht5_asr", 94, "MIT", "2110.07205"),
    EncoderSpec("torchaudio:HUBERT_XLARGE", "torchaudio:HUBERT_XLARGE", 962, "MIT", "2106.07447"),
    EncoderSpec(
        "torchaudio:EMFORMER_RNNT_BASE_LIBRISPEECH",
        "torchaudio:EMFORMER_RNNT_BASE_LIBRISPEECH",
        63,
        "unstated",
        "2010.10759",
    ),
    EncoderSpec("mfcc", "classical:mfcc", 0, "no weights", ""),
    EncoderSpec("logmel", "classical:logmel", 0, "no weights", ""),
    EncoderSpec("w2v-bert-2.0", "facebook/w2v-bert-2.0", 580, "MIT", "2312.05187"),
    EncoderSpec("seamless-m4t-v2-large", "facebook/seamless-m4t-v2-large", 580, "CC-BY-NC-4.0", "2312.05187"),
    EncoderSpec("parakeet-ctc-1.1b", "nvidia/parakeet-ctc-1.1b", 1061, "CC-BY-4.0", "2305.05084"),
    EncoderSpec("parakeet-tdt-0.6b-v3", "nvidia/parakeet-tdt-0.6b-v3", 609, "CC-BY-4.0", "2509.14128"),
    EncoderSpec("canary-1b-v2", "nvidia/canary-1b-v2", 811, "CC-BY-4.0", "2509.14128"),
)


TEXT_CATALOG = (
    EncoderSpec("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", 23, "Apache-2.0", "2002.10957"),
    EncoderSpec("all-mpnet-base-v2", "sentence-transformers/all-mpnet-base-v2", 109, "Apache-2.0", "2004.09297"),
    EncoderSpec("bert-base-uncased", "google-bert/bert-base-uncased", 110, "Apache-2.0", "1810.04805"),
    EncoderSpec("bert-base-multilingual", "google-bert/bert-base-multilingual-cased", 178, "Apache-2.0", "1810.04805"),
    EncoderSpec("roberta-base", "FacebookAI/roberta-base", 125, "MIT", "1907.11692"),
    EncoderSpec("xlm-roberta-base", "FacebookAI/xlm-roberta-base", 278, "MIT", "1911.02116"),
    EncoderSpec("distilbert-base-uncased", "distilbert/distilbert-base-uncased", 66, "Apache-2.0", "1910.01108"),
    EncoderSpec("albert-base-v2", "albert/albert-base-v2", 12, "Apache-2.0", "1909.11942"),
    EncoderSpec("electra-base", "google/electra-base-discriminator", 109, "Apache-2.0", "2003.10555"),
    EncoderSpec("deberta-v3-base", "microsoft/deberta-v3-base", 184, "MIT", "2111.09543"),
    EncoderSpec("modernbert-base", "answerdotai/ModernBERT-base", 149, "Apache-2.0", "2412.13663"),
    EncoderSpec("t5-base", "google-t5/t5-base", 110, "Apache-2.0", "1910.10683"),
    EncoderSpec("gpt2", "openai-community/gpt2", 124, "MIT", ""),
    EncoderSpec("qwen3-embedding-0.6b", "Qwen/Qwen3-Embedding-0.6B", 596, "Apache-2.0", "2506.05176"),
    EncoderSpec("clip-vit-base-patch32", "openai/clip-vit-base-patch32", 63, "unstated", "2103.00020"),
    EncoderSpec("clap-htsat-unfused", "laion/clap-htsat-unfused", 125, "Apache-2.0", "2211.06687"),
)


class Table(NamedTuple):
    """Rows of one kind.

    Attributes:
        rows: of the catalogue.
        command: that lists them.
    """

    rows: tuple[EncoderSpec, ...]
    command: str

    def find(self, name: str) -> EncoderSpec | None:
        """The row of this name, or None."""
        return next((spec for spec in self.rows if spec.name == name), None)

    def suggest(self, name: str) -> str:
        """A sentence part that names what a misspelt name may have meant, or ""."""
        close = difflib.get_close_matches(name, [spec.name for spec in self.rows], n=2, cutoff=0.6)
        return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""

    def lines(self) -> list[str]:
        """A line a row: name, parameters, licence, where it comes from."""
        width = max(len(spec.name) for spec in self.rows)
        return [
            f"{spec.name:{width}}  {f'{spec.parameters:g} M' if spec.parameters else '-':>7}  {spec.licence:16}  "
            f"{spec.source.replace(str(EMBEDDED), '(in this package)')}"
            for spec in self.rows
        ]


SPEECH = Table(CATALOG, "python -m speechfeat.extract --list-models")
TEXT = Table(TEXT_CATALOG, "python -m speechfeat.extract_text --list-models")


def find(name: str) -> EncoderSpec | None:
    """The row of a speech encoder of this name, or None."""
    return SPEECH.find(name)
