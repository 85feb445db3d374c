"""Each kind of file that this project writes or reads, damaged in ways drawn from a seed, and read by what really reads it

What may come out: the right answer, or one sentence (`UserError`) that names the file. Never another error, a process that dies or hangs, a
file changed or left behind, or, in silence, another answer. Some files are themselves what decides an answer, and nothing can say that they
were changed; those are named in `DECIDES`. Each of them is read in a process that can be killed.
"""

import hashlib
import io
import itertools
import json
import os
import random
import shutil
import zipfile
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from test_fuzz import damaged, picture, touch, tree

from hcil.clips import Clips
from hcil.containers import VideoError, write_video
from hcil.core import mutations, read_json, UserError, write_json
from hcil.datasets import manifest
from hcil.detect_command import gather, Failed
from hcil.layouts import COLUMNS, twin
from hcil.metrics import compare
from hcil.model import HCILConfig
from hcil.networks import load_model, save_model
from hcil.predictions import read_predictions, write_predictions
from hcil.prepare import _SourceMarks, claim, prepare, read_claim, read_prepared, write_prepared
from hcil.runs import RunStore
from hcil.runs_archive import act, export_runs
from hcil.stamps import stamp
from hcil.stores import CropStore, store_path, verify_store, write_store
from hcil.truth import read_truth, write_truth
from hcil.video import Video
from hcil.workers import Worker

TIMEOUT = 1800.0  # seconds for one file that takes milliseconds: reached only by what hangs, however busy the machine is
SLOW = "slow" in os.environ.get("HCIL_FLAGS", "").split()
MANY = 200 if SLOW else 16  # attacks of each sort on each kind of file
FRAMES, SIDE = 12, 32

# Files that decide an answer, where nobody can know another one: another answer of the right form is all that can be asked for
DECIDES = {
    "claim": "says where the videos were; it only names a folder",
    "twin": "says what a twin should hold; the counts are only compared with what is there",
    "truth": "says what was forged; whoever edits it well has written another truth",
    "weights": "a flipped bit of a weight is another weight; reports name the file by its hash",
    "predictions": "says what was predicted; any tool may write it",
    "split": "says which video belongs to which split",
    "list": "says which videos are meant",
    "video": "a damaged picture that decodes is another picture; the hash of the file tells (see test_fuzz)",
}


def sha(*data):
    "A hash of arrays, texts or bytes"
    h = hashlib.sha256()
    for d in data:
        h.update(d if isinstance(d, bytes) else d.encode() if isinstance(d, str) else np.ascontiguousarray(d).tobytes())
    return h.hexdigest()[:16]


# ---------------------------------------------------------------------------------------------- one of each kind


def crops(root):
    "Crop stores of two real videos and two fakes, with a manifest"
    rows = []
    claim(root / "crops", "ff++", root / "videos")
    for k in range(4):
        method, split = ("real", "Deepfakes")[k % 2], ("train", "test")[k // 2]
        video = f"{method}/c23/{k:03d}"
        more = dict(video=video, label=k % 2, method=method, dataset="ff++", split=split, compression="c23", frames=FRAMES, share=1.0)
        rows.append(dict.fromkeys([*COLUMNS, "note", "made", "problem"], "") | dict(max_faces=1, longest_gap=0, switched=0) | more)
        noise = np.random.default_rng(k).integers(256, size=(FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
        boxes = np.tile([0.0, 0, SIDE, SIDE], (FRAMES, 1))
        track = dict(boxes=boxes.tolist(), found=[True] * FRAMES, faces=[1] * FRAMES, chain=[0] * 6 + [1] * 6)
        told = dict(frames=FRAMES, found=FRAMES, share=1.0, max_faces=1, longest_gap=0, switched=1, note="")
        meta = dict(video=video, options=dict(scale=1.3), boxes=boxes, faces=boxes, track=track, report=told)
        write_store(store_path(root / "crops", video), noise, meta)
    write_prepared(pd.DataFrame(rows), root / "crops", "ff++", root / "videos", dict(size=SIDE))


def read_crops(root):
    "What a training is given: the manifest, and all clips"
    df = read_prepared(root / "crops")
    clips = Clips(df, root / "crops", U=2, T=4, train=True, seed=1, missing="refuse")
    items = [clips[k] for k in range(len(clips))]
    parts = [a for i in items for a in (i["clip"], i["index"], i["number"], i["boxes"], i["video"], str(i["label"]))]
    return [df[["video", "label", "method", "split", "compression"]].to_csv(), sha(*parts)]


def read_note(root):
    "Whose crops they are"
    name, place = read_claim(root / "crops")
    return [name, str(place)]


def sources(root):
    "A video, and the notes on what it is"
    touch(root, "videos/a.mp4", "videos/b.mp4")
    marks = _SourceMarks(root / "videos", root / "crops/.sources.json")
    (root / "crops").mkdir()
    for name in ("a.mp4", "b.mp4"):
        marks.of(name)
    marks.save()


def read_sources(root):
    marks = _SourceMarks(root / "videos", root / "crops/.sources.json")
    return [type(marks.of(name)).__name__ for name in ("a.mp4", "b.mp4")]


def ff(root):
    "A tiny FaceForensics++, said to be a twin"
    for split, pair in dict(train=["000", "003"], val=["111", "112"], test=["071", "054"]).items():
        write_json(root / f"ff/splits/{split}.json", [pair])
        for a, b in (pair, pair[::-1]):
            touch(root / "ff", f"original_sequences/youtube/c23/videos/{a}.mp4")
            touch(root / "ff", f"manipulated_sequences/Deepfakes/c23/videos/{a}_{b}.mp4")
    about = dict(dataset="ff++", twin="procedural", profile="smoke", seed=0, recipe="0" * 12, counts={"train ids": 2}, sha256="0" * 16)
    write_json(root / "ff/TWIN.json", about)


def read_ff(root):
    df = manifest("ff++", root / "ff")
    assert set(df.label) == {0, 1} and df.attrs["twin"] and df.video.is_unique and set(df.split) <= {"train", "val", "test"}
    return [df[["video", "label", "split"]].to_csv(), sorted(twin(root / "ff").get("counts", {}).items())]


def truths(root):
    "What is true of two videos"
    tracks = SimpleNamespace(**{k: torch.zeros(FRAMES, 1, 1) for k in ("x", "y", "scale")}, yaw=torch.zeros(FRAMES))
    recording = SimpleNamespace(person=SimpleNamespace(key="nobody"), tracks=tracks)
    forgery = SimpleNamespace(kind="local", local=1.0, change=0.5, sigma=1.0, forged=torch.arange(FRAMES) > 5)
    write_truth(root / "twins/ff", "Deepfakes/000_003", recording, "Deepfakes", "nobody", forgery, torch.ones(FRAMES, 16, 16))
    write_truth(root / "twins/ff", "original/000", recording)


def read_truths(root):
    found = [read_truth(root / "twins/ff", name) for name in ("Deepfakes/000_003", "original/000")]
    for t in found:
        assert t["forged"].shape == (FRAMES,) and t["forged"].dtype == bool and t["head"].shape == (FRAMES, 3)
    return [sha(*(t[k] for t in found for k in sorted(t) if k != "info")), [t["info"] for t in found]]


CODE = dict(modules=("hcil.seeds",))


def runs(root):
    "Two finished runs, a package of them, and a run that failed"

    def work(run):
        run.path("log.csv").write_text(f"epoch,loss\n0,{run.spec['seed']}\n")
        write_json(run.path("results.json"), dict(accuracy=0.5, seed=run.spec["seed"]))

    def fail(run):
        raise UserError("nothing came of it")

    store, spec = RunStore(root / "runs", **CODE), dict(profile="smoke", row="All", data=dict(source="none"))
    for seed in (0, 1):
        store.run(spec | dict(seed=seed), work, tell=print)
    with pytest.raises(UserError, match="nothing came of it"):
        store.run(spec | dict(seed=2), fail, tell=print)
    export_runs(store, root / "package.zip")


def read_runs(root):
    "What the store says: a run that is not in order is named as that, in the list and by an exit status"
    store = RunStore(root / "runs", **CODE)
    text, status = act(store, "verify", [])
    act(store, "list", [])
    act(store, "why", [])
    if status:
        raise UserError(f"{root / 'runs'}: {text.splitlines()[-1]}")
    finished = sorted(p.parent for p in (root / "runs").glob("*/done.json"))
    return [[f.name, read_json(f / "results.json"), (f / "log.csv").read_text()] for f in finished]


def read_failed(root):
    "The list names every run, whatever its spec.json says"
    store = RunStore(root / "runs", **CODE)
    (text, _), keys = act(store, "list", []), store.keys()
    return [key in text for key in keys]


def read_package(root):
    "The runs that come out of a package; when and where they were made (the stamp) is only told"
    new = root / "unpacked"
    try:
        store = RunStore(new, **CODE)
        act(store, "import", [str(root / "package.zip")])
        for run in store.runs():
            if run.status != "finished":  # it came in and does not count, which the list says
                raise UserError(f"{root / 'package.zip'}: run {run.key} is {run.status}: {run.why}")
        made = [p for p in sorted(new.glob("[0-9a-f]*/*"))]
        told = {p.parent.name: {k: read_json(p)[k] for k in ("spec", "outputs")} for p in made if p.name == "done.json"}
        return [told, {f"{p.parent.name}/{p.name}": sha(p.read_bytes()) for p in made if p.name != "done.json"}]
    finally:
        left = [p for p in tree(new) if p.endswith(".tmp") or "import" in p]
        shutil.rmtree(new, ignore_errors=True)
        assert not left, left


def weights(root):
    "A small network"
    torch.manual_seed(0)
    cfg = HCILConfig(backbone="resnet18", width=0.125, pretrained=None)
    save_model(cfg.build(), root / "weights.safetensors", warning="a test", stamp={}, spec=dict(train=dict(size=SIDE)))


def read_weights(root):
    model, about = load_model(root / "weights.safetensors")
    with torch.inference_mode():
        out = model.eval()(torch.zeros(1, 2, 4, 3, SIDE, SIDE, dtype=torch.uint8), heads=False).logits
    return [out.shape == (1, 2), sorted(about)]


def predictions(root):
    "Ten videos"
    df = pd.DataFrame(dict(video_id=[f"v{k}" for k in range(10)], label=[k % 2 for k in range(10)], prob=np.linspace(0.1, 0.9, 10)))
    df = df.assign(method=["real", "Deepfakes"] * 5, U=2, p1=df.prob, p2=df.prob)
    write_predictions(df, root / "predictions.csv", stamp("none", "none", 0))


def read_scores(root):
    "What `hcil_evaluate --compare` does with such a file; of another tool's it looks at label and prob alone"
    df = read_predictions(root / "predictions.csv")
    c = compare(df, df, resamples=10)
    assert 0 <= c["right_a"] <= c["n"] and (np.isnan(c["auc_a"]) or 0 <= c["auc_a"] <= 1)
    return [c["n"], c["right_a"]]


def listed(root):
    "A list of two videos, beside one that it does not name"
    touch(root, "a.mp4", "b.mp4", "c.mp4")
    (root / "list.txt").write_text("# two of three\na.mp4\nb.mp4\n", encoding="utf-8")


def read_list(root):
    found = gather([root / "list.txt"])
    for f in found:
        assert not isinstance(f, Failed) or len(f.why.splitlines()) == 1
    return [str(f) for f in found if not isinstance(f, Failed)]


def video(root):
    write_video(root / "a.mp4", [picture(k) for k in range(FRAMES)], crf=23, g=6)


def read_video(root):
    with Video(root / "a.mp4") as v:
        return [len(list(v)) == len(v)]


KINDS = {  # name: (what writes it, what reads it, the file, another file of its kind)
    "manifest": (crops, read_crops, "crops/manifest.csv", ""),
    "store": (crops, read_crops, "crops/Deepfakes/c23/001.zip", "crops/Deepfakes/c23/003.zip"),
    "claim": (crops, read_note, "crops/.dataset", ""),
    "sources": (sources, read_sources, "crops/.sources.json", "videos/a.mp4"),
    "twin": (ff, read_ff, "ff/TWIN.json", "ff/splits/val.json"),
    "split": (ff, read_ff, "ff/splits/train.json", "ff/TWIN.json"),
    "truth": (truths, read_truths, "twins/truth/ff/Deepfakes/000_003.npz", "twins/truth/ff/original/000.npz"),
    "done": (runs, read_runs, "runs/*0/done.json", "runs/*1/done.json"),
    "spec": (runs, read_failed, "runs/*2/spec.json", "runs/*0/spec.json"),
    "log": (runs, read_runs, "runs/*0/log.csv", "runs/*1/log.csv"),
    "results": (runs, read_runs, "runs/*0/results.json", "runs/*1/results.json"),
    "package": (runs, read_package, "package.zip", ""),
    "weights": (weights, read_weights, "weights.safetensors", ""),
    "predictions": (predictions, read_scores, "predictions.csv", ""),
    "list": (listed, read_list, "list.txt", "a.mp4"),
    "video": (video, read_video, "a.mp4", ""),
}


def places(root, name):
    "The file of a kind, and the other one of its kind or None; *0 and *1 are the finished runs, *2 is the other"
    keys = sorted((not (p / "done.json").exists(), p.name) for p in (root / "runs").glob("[0-9a-f]*"))
    at = lambda p: root / (p.replace("*0", keys[0][1]).replace("*1", keys[1][1]).replace("*2", keys[2][1]) if keys else p)
    *_, file, other = KINDS[name]
    return at(file), at(other) if other else None


# ---------------------------------------------------------------------------------------------- attacks


def json_of(data):
    "The JSON in a file, and the bytes before and after it; None if there is none"
    for head, tail in ((b"", b""), (b"# hcil-stamp: ", data[data.find(b"\n") :] if b"\n" in data else b"")):
        middle = data[len(head) : len(data) - len(tail)]
        if data.startswith(head):
            try:
                return head, json.loads(middle), tail
            except (ValueError, RecursionError):
                pass
    return None


def edits(data, n, seed):
    "Some of the edits of the JSON that a file is, or that its first line holds: keys left out, values of other kinds"
    parts = json_of(data)
    if parts is None:
        return
    head, value, tail = parts
    every = list(mutations(value))
    for what, edited in random.Random(seed).sample(every, min(n, len(every))):
        yield f"edit {what[:40]}", head + json.dumps(edited).encode() + tail


def zip_edits(data, n, seed):
    "The same for meta.json or done.json in a zip, which is packed anew with sound checksums"
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        entries = {i: z.read(i) for i in z.infolist()}
    for i in [i for i in entries if i.filename.rpartition("/")[2] in ("meta.json", "done.json")][:1]:
        for what, edited in edits(entries[i], n, seed):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as z:
                for j, content in entries.items():
                    z.writestr(j, edited if j is i else content)
            yield what, file.getvalue()


STRANGE = {
    "empty": b"",
    "zeros": bytes(5000),
    "no text": b"\xff\xfe" * 99,
    "nested list": b"[" * 10**5,
    "nested dict": b'{"a":' * 10**5,
    "a list": b"[]",
    "a dict": b"{}",
    "null": b"null",
    "a number": b"1e999",
    "NaN": b"NaN",
    "a long number": b"9" * 10**4,
    "a line": b"a,b\n1,2,3\n",
    "a zip of nothing": b"PK\5\6" + bytes(18),
}


def attacks(data, name, other):
    "(what, bytes): damage to the bytes, edits of what they say, other things in their place"
    yield from damaged(data, MANY, name)
    yield from edits(data, MANY, name)
    if zipfile.is_zipfile(io.BytesIO(data)):
        yield from zip_edits(data, MANY, name)
    yield from STRANGE.items()
    if other:
        yield "another file", other.read_bytes()


def outcome(worker, name, root):
    "The answer, or the sentence; anything else is a failed test"
    try:
        return worker.call(KINDS[name][1], root, timeout=TIMEOUT), ""
    except (UserError, FileNotFoundError) as e:
        text = str(e)
    assert "longer than" not in text and "process down" not in text, text
    assert len(text.splitlines()) == 1 and 20 < len(text) < 2000, f"not one sentence: {text[:300]!r}"
    return None, text


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "One of each kind of file"
    here = tmp_path_factory.mktemp("made")
    for write in dict.fromkeys(k[0] for k in KINDS.values()):
        (here / write.__name__).mkdir()
        write(here / write.__name__)
    return here


@pytest.fixture(scope="module")
def worker():
    "One process for everything that reads"
    with Worker() as w:
        w.call(abs, -1, timeout=TIMEOUT)
        yield w


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", KINDS)
def test_attack(name, made, worker, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(made / KINDS[name][0].__name__, root)
    at, other = places(root, name)
    data, (right, text) = at.read_bytes(), outcome(worker, name, root)
    assert text == "", text
    came = dict(right=0, other=0, sentence=0)
    for what, bad in attacks(data, name, other):
        at.write_bytes(bad)
        before = tree(tmp_path)
        got, text = outcome(worker, name, root)
        assert tree(tmp_path) == before, f"{what}: files were changed or left"
        came["sentence" if text else "right" if got == right else "other"] += 1
        assert text or got == right or name in DECIDES, f"{what}: another answer in silence: {str(got)[:300]}"
    print(f"{name}: {came}")
    assert came["sentence"] or name in ("sources", "list", "spec"), "nothing was refused: the attacks are too weak"
    at.write_bytes(data)
    assert outcome(worker, name, root) == (right, "")


@pytest.mark.parametrize("name", [n for n, k in KINDS.items() if k[3] and n not in ("sources", "twin", "split", "list")])
def test_swapped(name, made, worker, tmp_path):
    "Two files of one kind in each other's place"
    root = tmp_path / "root"
    shutil.copytree(made / KINDS[name][0].__name__, root)
    right, _ = outcome(worker, name, root)
    a, b = places(root, name)
    one, two = a.read_bytes(), b.read_bytes()
    a.write_bytes(two)
    b.write_bytes(one)
    got, text = outcome(worker, name, root)
    assert text or name in DECIDES or got == right, f"another answer in silence: {str(got)[:300]}"


def test_swapped_folders(made, worker, tmp_path):
    "Two finished runs in each other's place"
    root = tmp_path / "root"
    shutil.copytree(made / "runs", root)
    a, b = (p.parent for p in (root / "runs").glob("*/done.json"))
    a.rename(root / "aside")
    b.rename(a)
    (root / "aside").rename(b)
    got, text = outcome(worker, "done", root)
    assert text and "not in order" in text


def test_video_error_is_one():
    "What the readers of videos raise is a `UserError`, so that `outcome` takes it for a sentence"
    assert issubclass(VideoError, UserError)


class Here(Worker):
    "Instead of a process of its own: what it reads is sound in `test_prepare_again`, and to start one takes seconds each time"

    def call(self, fn, *args, timeout):
        return resolve_name(fn)(*args)


@pytest.mark.skipif(not SLOW, reason="many more attacks on stores of a data set that is prepared: FLAGS=slow")
def test_prepare_again(tmp_path, monkeypatch):
    "Damaged stores and manifests are made again by hcil_prepare, and then all is as it was; of a damaged claim it says what to do"
    from test_fuzz import in_shard, shard

    monkeypatch.setattr("hcil.prepare.Worker", Here)
    root, out = in_shard(tmp_path / "wild", shard()), tmp_path / "out"
    again = lambda: prepare("wild", root, out, size=40, timeout=TIMEOUT, readings=dict(val_share=0.0))
    again()
    (store,) = (Path(p) for p in tree(out) if p.endswith(".zip"))
    mark = CropStore(store).mark
    for _, bad in itertools.islice(damaged(store.read_bytes(), MANY, "again"), MANY):
        store.write_bytes(bad)
        again()
        if said := verify_store(store):  # a damaged picture is noticed when it is read, not by the cheap check
            assert str(store) in said and "delete it and let hcil_prepare make it again" in said
            store.unlink()
            again()
        assert verify_store(store) == ""
        assert CropStore(store).mark == mark  # the same crops; what is behind the end of a zip is nobody's
    lines = lambda: {p: b.partition(b"\n")[2] if p.endswith(".csv") else b for p, b in tree(out).items()}  # the first one is a stamp
    again()  # which now has nothing to make, and the manifest says so
    left = lines()
    for name in ("manifest.csv", ".dataset"):
        data, claims = (out / name).read_bytes(), name == ".dataset"
        for what, bad in list(attacks(data, name, None))[::7]:
            (out / name).write_bytes(bad)
            try:
                again()
            except UserError as e:
                assert claims and str(out) in str(e) and len(str(e).splitlines()) == 1, f"{name}, {what}: {e}"
                (out / name).write_bytes(data)
                again()
            assert lines() == left, f"{name}, {what}"
