"""Find what is said in writing, and what is written in speech: one space for both, learnt by contrast.

    python recipes/speech_text_match.py --root corpus.tsv --text-model path/to/all-MiniLM-L6-v2 -o runs/match
        [-m MODEL] [--where text --where speaker] [--unseen speakers.csv] [--spot CORPUS:DIR[:LABEL] ...]

Sentences, and words and phrases that are found in them by alignment (`sf.align`), teach two small projections, of the
speech encoder's and of the text encoder's embeddings, to give what belongs together the same direction (symmetric
InfoNCE). In five folds by speaker each sentence is looked for among all sentences of its fold: neither its speaker nor
the sentence was trained on. --unseen lists speakers that the speech encoder was not trained on either.

--spot tells keywords by typed words: each recording of another corpus is taken for the word whose text is nearest. The
words are the values of the label, digits spelt out. Nothing was learnt from that corpus; the words themselves may have
been among those of the sentences.

Common Voice English, conformer-s and all-MiniLM-L6-v2 (--root common_voice_en.tsv --where text --where speaker): text
is found for speech at R@1 6.9 (5.5-8.6), R@10 26.0 (22.9-30.0), speech for text at 8.6 (6.8-10.6) and 31.4 (28.0-35.1),
among 201 to 602 sentences; FSDD's digits by their typed names 52.2 % (46.6-57.8), six wake words 21.4 % (17.2-25.3).
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import speechfeat as sf

DIRECTIONS = {"text for speech": "speech_to_text", "speech for text": "text_to_speech"}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# What is typed for a label that is no word.
TYPED = {str(number): word for number, word in enumerate(DIGITS)}


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    sf.add_corpus_options(parser, "manifest")
    parser.set_defaults(group="speaker")
    sf.add_encoder_options(parser)
    parser.add_argument(
        "-l", "--layers", default="penultimate", help="of the speech encoder, side by side (%(default)s)"
    )
    sf.add_text_options(parser)
    group = parser.add_argument_group("matching")
    group.add_argument("--aligner", default="conformer-s", help="model with a CTC head (%(default)s)")
    group.add_argument("--folds", type=int, default=5, help="by speaker (%(default)s)")
    group.add_argument("--unseen", type=Path, help="CSV or TSV of speakers that the speech encoder was not trained on")
    group.add_argument("--spot", action="append", default=[], metavar="CORPUS:DIR[:LABEL]", help="keywords to tell")
    sf.add_output_options(parser)
    return parser.parse_args()


def extract(corpus: sf.Corpus, model: str, options: argparse.Namespace) -> sf.MatchData:
    """Speech and text embeddings of sentences, words and phrases."""
    kept: Path = options.features or options.out / "features"
    folder = sf.features_folder(kept, model, corpus, pool=options.pool)
    speech = sf.word_features(
        corpus,
        folder.with_name(f"{folder.name}-words-{sf.model_slug(options.layers)}"),
        model,
        sf.load_aligner(options.aligner, device=options.device, dtype=options.dtype),
        options.layers,
        text=options.text,
        pool=options.pool,
        **sf.extraction_of(options),
    )
    return sf.MatchData.of(
        speech, sf.text_features_of(options, speech.corpus, kept, text=speech.corpus.label), options.group
    )


def find(data: sf.MatchData, options: argparse.Namespace) -> dict[str, Any]:
    """R@1 and R@10 in both directions, of all and of those whose speakers the encoder has never heard."""
    found = sf.retrieve(data, folds=options.folds, seed=options.seed)
    rows = {"all": np.ones(len(found.rows), bool)}
    if options.unseen:
        rows["unseen by the encoder"] = np.isin(found.speakers, sf.read_speakers(options.unseen))
    return {
        "galleries": found.galleries,
        "scores": {
            f"{name}, {who}": {"recordings": int(chosen.sum())}
            | {f"R@{k}": found.recall(k, direction, chosen) for k in (1, 10)}
            for name, direction in DIRECTIONS.items()
            for who, chosen in rows.items()
        },
    }


def read_keywords(task: str) -> sf.Corpus:
    """The corpus of `CORPUS:DIR[:LABEL]`.

    Raises:
        ParameterError: if it is not of that form, or the corpus cannot be read.
    """
    name, root, label = [*task.split(":"), "", ""][:3]
    if not root:
        raise sf.ParameterError(f"--spot {task!r} must be CORPUS:DIR[:LABEL], as in fsdd:path/to/fsdd")
    return sf.open_corpus(name, root, label=label or None)


def spot(
    corpus: sf.Corpus, model: str, matcher: sf.Matcher, known: set[str], options: argparse.Namespace
) -> dict[str, Any]:
    """How many recordings of keywords are told by typed words."""
    kept = options.features or options.out / "features"
    folder = sf.features_folder(kept, model, corpus, pool=options.pool)
    features = sf.corpus_features(
        corpus,
        folder.with_name(f"{folder.name}-{sf.model_slug(options.layers)}"),
        model,
        options.layers,
        pool=options.pool,
        **sf.extraction_of(options),
    )
    words = sorted({TYPED.get(value, value) for value in features.values()})
    texts = sf.load_text_encoder(
        options.text_model, options.text_layers, device=options.device, dtype=options.dtype
    ).embed(words, options.text_pool)
    speech = features.store.embeddings(features.ids)[1]
    scores = matcher.speech(speech.reshape(len(speech), -1)) @ matcher.text(texts.reshape(len(words), -1)).T
    labels = np.array([words.index(TYPED.get(value, value)) for value in features.values()])
    groups = None if corpus.group is None else features.values(corpus.group)
    is_right = scores.argmax(axis=1) == labels
    return {
        "recordings": len(labels),
        "words": len(words),
        "never heard": [word for word in words if word not in known],
        "accuracy": sf.LayerScore(is_right.mean(), *sf.bootstrap_interval(np.mean, is_right, groups=groups)),
        "chance": 1 / len(words),
        "by word": {word: float(is_right[labels == place].mean()) for place, word in enumerate(words)},
    }


def run(corpus: sf.Corpus, keywords: dict[str, sf.Corpus], model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Retrieval in folds, then a matcher of all speakers, which is saved and tells keywords."""
    data = extract(corpus, model, options)
    result = find(data, options)
    matcher = data.train(np.arange(len(data.ids)), seed=options.seed)
    matcher.about |= {"speech": [model, options.layers, options.pool]}
    matcher.about |= {"text": [options.text_model, options.text_layers, options.text_pool]}
    matcher.save(options.out / sf.model_slug(model) / "matcher")
    known = set(data.pairs.names)
    spotted = {task: spot(other, model, matcher, known, options) for task, other in keywords.items()}
    return {**result, "sentences": int(data.is_whole.sum()), "pairs": len(data.ids), "keywords": spotted}


def report(results: dict[str, dict[str, Any]]) -> list[sf.Section]:
    """Tables of what is found."""
    found = [
        {"encoder": model, "looked for": name, **scores}
        for model, one in results.items()
        for name, scores in one["scores"].items()
    ]
    said = [
        f"{model}: {one['sentences']} recordings, {one['pairs']} pairs with words and phrases; galleries of "
        f"{', '.join(map(str, one['galleries']))} sentences."
        for model, one in results.items()
    ]
    sections = [sf.Section("Retrieval", "\n\n".join([sf.markdown_table(found), *said]))]
    names = ("recordings", "words", "accuracy")
    told = [
        {"encoder": model, "keywords": task}
        | {name: row[name] for name in names}
        | {"chance": f"{100 * row['chance']:.1f}", "never heard": ", ".join(row["never heard"]) or None}
        for model, one in results.items()
        for task, row in one["keywords"].items()
    ]
    return [*sections, *([sf.Section("Keywords by typed words", sf.markdown_table(told))] if told else [])]


def main() -> int:
    """Match, report."""
    options = read_arguments()
    # What is to be told here is the sentence; every line has a speaker.
    options.label = options.label or options.group
    keywords = {task: read_keywords(task) for task in options.spot}
    corpus = sf.corpus_of(options)
    results = {model: run(corpus, keywords, model, options) for model in sf.models_of(options)}
    sf.write_results(options.out, {"command": sf.command_line(), "corpus": corpus.name, "models": results})
    sections = report(results)
    sf.write_report(options.out, "Speech and text in one space", sf.command_line(), sections)
    print("\n\n".join(section.body for section in sections))
    return 0


if __name__ == "__main__":
    sys.exit(sf.main_with_errors(main))
