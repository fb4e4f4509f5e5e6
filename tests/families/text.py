"""Tiny text models of every architecture that is known, and what transformers says of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from speechfeat.encoders.text import TextEncoder
from speechfeat.encoders.text_loading import load_text_encoder
from tests.families.case import seeded

LETTERS = "abcdefghijklmnopqrstuvwxyzאבגדה"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
VOCABULARY = {
    name: number
    for number, name in enumerate(
        [
            *SPECIAL,
            *LETTERS,
            *(f"##{letter}" for letter in LETTERS),
            *("the", "cat", "##ing", "sat", "on", "mat", ".", ","),
        ]
    )
}

BOTH, BEFORE, BEHIND, NONE = "<s> $A </s>", "<s> $A", "$A </s>", "$A"

TEXTS = [
    "the cat sat on the mat.",
    "a",
    "the dog, being old, was sleeping on a mat near the fire and dreaming of a long walk in the hills.",
    "אבג the cat דה",
    "sat on the cat, the cat on the mat, the mat on a box, the box on a cart, the cart on a road, the road in a land "
    "far away where nobody ever sat",
    "on the mat",
]

SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
T5 = {"vocab_size": len(VOCABULARY), "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 3, "num_heads": 4}
RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": -1}
DEBERTA3 = {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True, "type_vocab_size": 0}
GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256}


@dataclass(frozen=True)
class TextCase:
    """A tiny configuration of an architecture.

    Attributes:
        name: of the architecture and its variant.
        model_type: of transformers.
        changes: to `SIZES`; with `alone`, the whole configuration.
        template: of special tokens.
        model: class of transformers, where it is not the automatic one.
    """

    name: str
    model_type: str
    template: str = BOTH
    changes: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False
    model: str = ""

    def make(self) -> Any:
        sizes = {} if self.alone else SIZES
        config = transformers.AutoConfig.for_model(self.model_type, **{**sizes, **self.changes})
        found = getattr(transformers, self.model) if self.model else transformers.AutoModel._model_mapping[type(config)]
        return enliven(seeded(found, config))

    def encoder(self, layers: Any = "penultimate", **options: Any) -> TextEncoder:
        arguments = {"device": "cpu", "dtype": "float32", "tokenizer": make_tokenizer(self.template), **options}
        return load_text_encoder(self.make(), layers, **arguments)


def enliven(model: Any) -> Any:
    """Weights larger than models begin with, so that attention is not nearly even and positions are felt."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.15, generator=generator)
    return model


def make_tokenizer(template: str = BOTH, max_length: int | None = None) -> transformers.PreTrainedTokenizerFast:
    """Words cut into letters, with special tokens around."""
    tokenizer = Tokenizer(models.WordPiece(VOCABULARY, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(name, VOCABULARY[name]) for name in ("<s>", "</s>")]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        **({} if max_length is None else {"model_max_length": max_length}),
    )


def stock(model: Any, tokenizer: Any, text: str) -> list[np.ndarray]:
    """What transformers gives for one text: layers 0 to L, `[T, D]` each, the last through the final norm."""
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        result = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True
        )
    states = [state[0].numpy() for state in result.hidden_states]
    return [*states[:-1], result.last_hidden_state[0].numpy()]


def cases() -> list[TextCase]:
    bert = [
        TextCase(name, name) for name in ("bert", "electra", "camembert", "data2vec-text", "roberta", "xlm-roberta")
    ]
    deberta = {**RELATIVE, **DEBERTA3}
    decoders = ("mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2", "smollm3", "granite")
    windowed = {"sliding_window": 8, "use_sliding_window": True}
    clap = {**SIZES, "projection_dim": 16}
    return [
        *bert,
        TextCase("electra, smaller embeddings", "electra", changes={"embedding_size": 16}),
        TextCase("roberta-prelayernorm", "roberta-prelayernorm"),
        TextCase("xlm-roberta-xl", "xlm-roberta-xl"),
        TextCase("deberta", "deberta", changes={**RELATIVE, "position_biased_input": False}),
        TextCase("deberta-v2, convolution", "deberta-v2", changes={**deberta, "conv_kernel_size": 3}),
        TextCase("deberta-v3", "deberta-v2", changes={**deberta, "position_biased_input": False}),
        TextCase("mpnet", "mpnet"),
        TextCase("distilbert", "distilbert", changes={"dim": 32, "hidden_dim": 64, "n_layers": 3, "n_heads": 4}),
        TextCase("albert", "albert", changes={"embedding_size": 16}),
        TextCase("albert, two groups", "albert", changes={"embedding_size": 16, "num_hidden_groups": 2}),
        TextCase("modernbert", "modernbert", changes={"local_attention": 8, "global_attn_every_n_layers": 2}),
        TextCase("eurobert", "eurobert"),
        *(
            TextCase(name, name, BEHIND, {**T5, "feed_forward_proj": "gated-gelu"}, True, f"{name.upper()}EncoderModel")
            for name in ("t5", "mt5", "umt5")
        ),
        TextCase("gpt2", "gpt2", NONE, {**GPT2, "vocab_size": len(VOCABULARY)}, True),
        TextCase(
            "gpt_neo", "gpt_neo", NONE, {"attention_types": [[["global", "local", "global"], 1]], "window_size": 8}
        ),
        TextCase("gpt_neox", "gpt_neox", NONE),
        TextCase("llama", "llama", BEFORE),
        *(TextCase(name, name, BEFORE, windowed) for name in decoders),
        TextCase("stablelm", "stablelm", BEFORE),
        TextCase("starcoder2", "starcoder2", BEFORE, windowed),
        TextCase("clip", "clip_text_model", model="CLIPTextModel"),
        TextCase("clap", "clap_text_model", changes=clap, model="ClapTextModel"),
    ]


TEXT_CASES = cases()

# Some of the texts are longer than it takes.
SHORT_BERT = TextCase("bert, 64 positions", "bert", changes={"max_position_embeddings": 64})
