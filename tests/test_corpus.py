"""Sources of every kind become utterances, and malformed ones become one clear sentence."""

import json
import os
from pathlib import Path

import pytest

from speechfeat.corpus import discover, expand_channels, printable, shard
from speechfeat.errors import ParameterError
from speechfeat.types import Utterance


def touch(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def ids(*args, **kwargs) -> list[str]:
    return [utterance.id for utterance in discover(*args, **kwargs)]


def test_directory_is_listed_by_relative_path_with_suffix(tmp_path):
    touch(tmp_path, "b/x.WAV", "a.wav", "a.flac", "b/c/y.m4a", "notes.txt", ".hidden.wav", ".git/z.wav")
    assert ids(tmp_path) == ["a.flac", "a.wav", "b/c/y.m4a", "b/x.WAV"]
    assert ids(tmp_path, suffixes=["wav"]) == ["a.wav", "b/x.WAV"]
    assert all(Path(utterance.path).exists() for utterance in discover(tmp_path))
    assert {utterance.channel for utterance in discover(str(tmp_path), channel="1")} == {1}


def test_directory_of_an_audio_name_is_walked(tmp_path):
    touch(tmp_path, "x.wav/inner.wav")
    assert ids(tmp_path) == ["x.wav/inner.wav"]


def test_links_are_followed_once_and_broken_ones_listed(tmp_path):
    touch(tmp_path, "real/a.wav", "real/deep/b.wav", "outside/c.wav")
    source = tmp_path / "real"
    (source / "cycle").symlink_to(source)
    (source / "again").symlink_to(source / "deep")
    (source / "far").symlink_to(tmp_path / "outside")
    (source / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (source / "loop.wav").symlink_to(source / "loop.wav")
    assert ids(source) == ["a.wav", "deep/b.wav", "far/c.wav", "gone.wav", "loop.wav"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may list every directory")
def test_directory_that_may_not_be_listed_is_an_utterance(tmp_path):
    touch(tmp_path, "a.wav", "closed/b.wav")
    (tmp_path / "closed").chmod(0)
    assert ids(tmp_path) == ["a.wav", "closed"]
    (tmp_path / "closed").chmod(0o700)


def test_odd_names_have_printable_ids_and_true_paths(tmp_path):
    names = [b"caf\xe9.wav", "caf\u00e9.wav".encode(), b"-n.wav", b"two\nlines.wav", b"a b.wav", b"back\\slash.wav"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"")
    utterances = discover(tmp_path)
    assert {os.fsencode(Path(utterance.path).name) for utterance in utterances} == set(names)
    assert sorted(utterance.id for utterance in utterances) == sorted(
        ["caf\\xe9.wav", "caf\u00e9.wav", "-n.wav", "two\\nlines.wav", "a b.wav", "back\\slash.wav"]
    )
    for utterance in utterances:
        utterance.id.encode("utf-8")


def test_names_that_would_share_an_id_are_refused(tmp_path):
    touch(tmp_path, "a\n.wav", "a\\n.wav")
    with pytest.raises(ParameterError, match="same id"):
        discover(tmp_path)


def test_printable_keeps_scripts():
    assert printable("\u0645\u06cc\u200c\u062e \u00a0") == "\u0645\u06cc\u200c\u062e \u00a0"
    assert printable("\x00\x7f\u2028") == "\\x00\\x7f\\u2028"


def test_single_recording(tmp_path):
    touch(tmp_path, "one take.opus")
    assert discover(tmp_path / "one take.opus") == [Utterance("one take.opus", str(tmp_path / "one take.opus"))]


def test_list_resolves_against_its_directory_then_the_current_one(tmp_path, monkeypatch):
    touch(tmp_path, "lists/near.wav", "cwd/far.wav", "root/near.wav", "lists/clips/cv.mp3")
    monkeypatch.chdir(tmp_path / "cwd")
    absolute = tmp_path / "cwd/far.wav"
    (tmp_path / "lists/all.txt").write_text(f"near.wav\r\n\nfar.wav\ncv.mp3\nnone.wav\n{absolute}\n")
    paths = [utterance.path for utterance in discover(tmp_path / "lists/all.txt")]
    lists = tmp_path / "lists"
    expected = [lists / "near.wav", "far.wav", lists / "clips/cv.mp3", lists / "none.wav", absolute]
    assert paths == [str(path) for path in expected]
    (tmp_path / "lists/near.txt").write_text("near.wav")
    rooted = discover(tmp_path / "lists/near.txt", root=tmp_path / "root")
    assert rooted[0].path == str(tmp_path / "root/near.wav")


def test_list_keeps_names_that_are_not_utf8(tmp_path):
    (tmp_path / "all.lst").write_bytes(b"caf\xe9.wav\n")
    utterance = discover(tmp_path / "all.lst")[0]
    assert utterance.id == "caf\\xe9.wav"
    assert os.fsencode(utterance.path).endswith(b"/caf\xe9.wav")


# Manifest name and contents -> (id, start, duration, labels) of its utterances.
GOOD = {
    "path": ("a.csv", "path\na.wav\nb.wav\n", [("a.wav", 0, None, {}), ("b.wav", 0, None, {})]),
    "segments": (
        "a.csv",
        "path,start,end,label\na.wav,0.5,2,NA\na.wav,2,,007\na.wav,,1,\n",
        [
            ("a.wav#0.500-2.000", 0.5, 1.5, {"label": "NA"}),
            ("a.wav#2.000-", 2, None, {"label": "007"}),
            ("a.wav#0.000-1.000", 0, 1, {"label": ""}),
        ],
    ),
    "id": ("a.csv", 'ID,Path,x\nu1,"a, b.wav","1\n2"\n', [("u1", 0, None, {"x": "1\n2"})]),
    "byte order mark": ("a.csv", "\ufeffpath,id\r\na.wav,u\r\n", [("u", 0, None, {})]),
    "tsv quotes are text": (
        "a.tsv",
        'path\tsentence\na.mp3\t"Oh," she said\nb.mp3\tit\'s 5" long\n',
        [
            ("a.mp3", 0, None, {"sentence": '"Oh," she said'}),
            ("b.mp3", 0, None, {"sentence": "it's 5\" long"}),
        ],
    ),
    "duration without a start is a label": (
        "a.tsv",
        "path\tduration\na.wav\t5.9\n",
        [("a.wav", 0, None, {"duration": "5.9"})],
    ),
    "start and duration": ("a.csv", "wav,start,duration\na.wav,1,2\n", [("a.wav#1.000-3.000", 1, 2, {})]),
    "first alias wins": ("a.csv", "file,path\nx,a.wav\n", [("a.wav", 0, None, {"file": "x"})]),
    "nemo": (
        "a.json",
        '{"audio_filepath": "a.wav", "offset": 1.5, "duration": 2.0, "text": "hi \u2028 there"}\n\n'
        '{"audio_filepath": "b.wav", "duration": 2.5, "label": 3, "x": null}',
        [
            ("a.wav#1.500-3.500", 1.5, 2, {"text": "hi \u2028 there"}),
            ("b.wav", 0, None, {"duration": "2.5", "label": "3"}),
        ],
    ),
    "hugging face": (
        "a.jsonl",
        '{"audio": {"path": "a.wav", "bytes": null}, "ok": true}',
        [("a.wav", 0, None, {"ok": "true"})],
    ),
    "emobox": ("a.jsonl", '{"key": 7, "wav": "a.wav"}', [("7", 0, None, {})]),
}


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD)
def test_manifests(tmp_path, case):
    name, text, expected = case
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    found = [(u.id, u.start, u.duration, dict(u.labels)) for u in discover(tmp_path / name)]
    assert found == expected


BAD = {
    "empty csv": ("a.csv", b"", "lists no recordings"),
    "header only": ("a.csv", b"path,id\n", "lists no recordings"),
    "empty list": ("a.txt", b"\n\n", "lists no recordings"),
    "no path column": ("a.csv", b"name;start\nx;1\n", "no column 'path'.*name;start"),
    "empty path": ("a.csv", b"path,id\n,u\n", "line 2 .* empty path"),
    "ragged": ("a.csv", b"path,id\na.wav,u,v\n", "line 2 .* 3 cells, its header has 2"),
    "column twice": ("a.csv", b"path,x,x\na.wav,1,2\n", "two columns 'x'"),
    "open quote": ("a.csv", b'path\n"a.wav\n', "malformed"),
    "bad number": ("a.csv", b"path,start\na.wav,soon\n", "line 2 .* start='soon'"),
    "negative start": ("a.csv", b"path,start\na.wav,-1\n", "at least 0"),
    "not finite": ("a.jsonl", b'{"path": "a.wav", "start": NaN}', "line 1 .* start='NaN'"),
    "end before start": ("a.csv", b"path,start,end\na.wav,2,2\n", "end=2, not after start=2"),
    "no duration": ("a.csv", b"path,start,duration\na.wav,2,0\n", "above 0"),
    "same id": ("a.csv", b"path,id\na.wav,u\nb.wav,u\n", "line 2 and line 3 .* same id 'u'"),
    "same path": ("a.txt", b"a.wav\na.wav\n", "line 1 and line 2"),
    "not utf-8": ("a.csv", b"path,text\na.wav,ok\nb.wav,caf\xe9\n", "line 3 .* 0xe9"),
    "json": ("a.jsonl", b'{"path": "a.wav"}\n{"path": \n', "line 2 .* not JSON"),
    "json list": ("a.json", b'["a.wav"]', "line 1 .* not a JSON object"),
    "json without path": ("a.jsonl", b'{"text": "x"}', "no path, only: text"),
    "unknown suffix": ("a.pdf", b"x", "unknown suffix.*csv"),
    "kaldi pipe": ("wav.scp", b"u sph2pipe -f wav a.sph |\n", "line 1 .* command"),
    "kaldi ark": ("wav.scp", b"u raw.ark:1234\n", "archive"),
    "kaldi value": ("wav.scp", b"u\n", "an id and a value"),
    "kaldi id twice": ("wav.scp", b"u a.wav\nu b.wav\n", "line 1 and line 2 .* 'u'"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_manifests(tmp_path, case):
    name, data, message = case
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ParameterError, match=message) as error:
        discover(tmp_path / name)
    assert "\n" not in str(error.value)


def test_missing_and_empty_sources(tmp_path):
    for source in (tmp_path / "none", tmp_path / "none.wav", tmp_path / "none.csv", "", "a\0b"):
        with pytest.raises(ParameterError):
            discover(source)
    touch(tmp_path, "notes.pdf", "more.pdf", "README")
    with pytest.raises(ParameterError, match=r"looked for .*\.wav.*found \.pdf \(2\), no suffix \(1\)"):
        discover(tmp_path)
    for channel in ("left", -1, True):
        with pytest.raises(ParameterError, match="channel="):
            discover(tmp_path, channel=channel)


def test_kaldi_directory(tmp_path):
    (tmp_path / "wav.scp").write_text("r1 my talk.wav\nr2  /abs/b.wav \n")
    (tmp_path / "utt2spk").write_text("r1 anna\nr2 bob\n")
    (tmp_path / "text").write_text("r1 hello there\nr2\n")
    whole = discover(tmp_path)
    assert [(u.id, u.path) for u in whole] == [("r1", str(tmp_path / "my talk.wav")), ("r2", "/abs/b.wav")]
    assert whole[0].labels == {"text": "hello there", "speaker": "anna"}
    assert whole == discover(tmp_path / "wav.scp")

    (tmp_path / "segments").write_text("s1 r1 0.5 2.25\ns2 r2 1 -1 1\n")
    segments = discover(tmp_path, channel="all")
    found = [(u.id, Path(u.path).name, u.start, u.duration, u.channel) for u in segments]
    assert found == [("s1", "my talk.wav", 0.5, 1.75, "all"), ("s2", "b.wav", 1.0, None, 1)]
    for line, message in [
        ("s1 r9 0 1", "r9"),
        ("s1 r1 0", "utterance recording"),
        ("s1 r1 2 1", "not after"),
        ("s r1 0 1 x", "channel"),
    ]:
        (tmp_path / "segments").write_text(line + "\n")
        with pytest.raises(ParameterError, match=message):
            discover(tmp_path)


def test_expand_channels():
    utterance = Utterance("u", "u.wav", 1.0, 2.0, "all", {"a": "b"})
    assert expand_channels(utterance, 2) == [
        Utterance("u:ch0", "u.wav", 1.0, 2.0, 0, {"a": "b"}),
        Utterance("u:ch1", "u.wav", 1.0, 2.0, 1, {"a": "b"}),
    ]
    mean = Utterance("u", "u.wav")
    assert expand_channels(mean, 2) == [mean]


def test_shards_are_a_partition():
    utterances = [Utterance(str(k), f"{k}.wav") for k in range(11)]
    parts = [shard(utterances, f"{k}/3") for k in (1, 2, 3)]
    assert sorted((u.id for part in parts for u in part), key=int) == [u.id for u in utterances]
    assert shard(utterances, "1/1") == utterances
    for bad in ("0/3", "4/3", "1/0", "1", "a/b", "1/3/5", "-1/3"):
        with pytest.raises(ParameterError, match="i/n"):
            shard(utterances, bad)


def test_large_manifest_is_quick(tmp_path):
    lines = "".join(json.dumps({"path": f"{k}.wav", "start": 0, "end": 1}) + "\n" for k in range(5000))
    (tmp_path / "a.jsonl").write_text(lines)
    assert len(discover(tmp_path / "a.jsonl")) == 5000
