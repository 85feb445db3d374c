"""Damaged files: each ends in one clear sentence or in a correct result, in bounded time, and leaves nothing behind

Videos, tar shards, lists and crop stores are damaged in ways drawn from a seed. Whatever reads them runs in a process that can be killed,
so a hang or a crash is a failed test and not the end of the tests.
"""

import gzip
import io
import itertools
import json
import math
import os
import random
import resource
import tarfile
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from hcil.containers import VideoError, write_video
from hcil.core import UserError
from hcil.datasets import manifest, open_video
from hcil.layouts import COLUMNS
from hcil.prepare import prepare, read_prepared
from hcil.stores import CropStore, plain, verify_store, why_make, write_store
from hcil.video import Video
from hcil.workers import Worker

TIMEOUT = 30.0  # seconds for one file that takes milliseconds
N = 12  # frames in each video, and in each sequence of a shard
MEMORY = 512  # MB that reading one file may add to the process
UNNOTICED = (
    0.1  # share of damaged mp4 and mkv files that may lose frames without an error: a damaged table of times or sizes can be a valid one
)

# ---------------------------------------------------------------------------------------------- damage


def place(r, data, most=64):
    "A short stretch of the bytes: (begin, end)"
    a = r.randrange(len(data))
    return a, min(len(data), a + r.randint(1, most))


def flip(r, data):
    "Some bits"
    data = bytearray(data)
    for _ in range(r.choice([1, 1, 3, 30])):
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)
    return bytes(data)


def zero(r, data):
    "A stretch of zeros"
    a, b = place(r, data, r.choice([16, 600, 4096]))
    return data[:a] + bytes(b - a) + data[b:]


def cut(r, data):
    return data[: r.randrange(1, len(data))]


def lose(r, data):
    "A stretch is missing"
    a, b = place(r, data, 2000)
    return data[:a] + data[b:]


def double(r, data):
    "A stretch comes twice"
    a, b = place(r, data, 2000)
    return data[:b] + data[a:]


def head(r, data):
    "One to four bytes near the beginning or the end, where headers and tables lie, get new values"
    data = bytearray(data)
    where = r.choice([range(min(200, len(data))), range(max(0, len(data) - 900), len(data))])
    for _ in range(r.randint(1, 4)):
        data[r.choice(where)] = r.choice([0, 1, 127, 128, 255, r.randrange(256)])
    return bytes(data)


def number(r, data):
    "Four bytes become a count or size nobody would believe"
    a = r.randrange(max(1, len(data) - 4))
    return data[:a] + r.choice([b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", bytes(4)]) + data[a + 4 :]


DAMAGE = flip, zero, cut, lose, double, head, number


def damaged(data, n, seed):
    "`n` times (which damage, damaged bytes), always the same; each really is damaged"
    for k, damage in zip(range(n), itertools.cycle(DAMAGE)):
        r = random.Random(f"{seed}/{k}")
        bad = damage(r, data)
        while bad == data:
            bad = damage(r, data)
        yield f"{damage.__name__}_{k}", bad


# ---------------------------------------------------------------------------------------------- what must hold


@pytest.fixture(scope="module")
def worker():
    "One process for everything that reads"
    with Worker() as w:
        w.call(memory, timeout=120)  # importing takes long on a busy machine
        yield w


def memory():
    "The most that this process ever had, in MB"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def tree(*folders):
    "All that is in some folders: path -> bytes (None: a folder, text: where a link points)"
    found = sorted(p for f in folders for p in Path(f).rglob("*"))
    return {str(p): os.readlink(p) if p.is_symlink() else None if p.is_dir() else p.read_bytes() for p in found}


def outcome(worker, fn, *args):
    "What `fn` returns, or the sentence of its error; anything else is a failed test"
    try:
        return worker.call(fn, *args, timeout=TIMEOUT), ""
    except UserError as e:
        text = str(e)
    assert "longer than" not in text and "process down" not in text, text
    assert len(text.splitlines()) == 1 and len(text) > 20, f"not one sentence: {text!r}"
    return None, text


def tally(results, least=1):
    "Sentences and (at least so many) results, or the damage was too weak or too strong to test anything"
    good = sum(not text for _, text in results)
    print(f"{len(results)} files: {len(results) - good} sentences, {good} results")
    assert least <= good < len(results)


# ---------------------------------------------------------------------------------------------- videos


def picture(k, h=48, w=64):
    "Frame `k`: a slope and a square that moves, uint8 `[h,w,3]`"
    y, x = np.mgrid[:h, :w]
    f = np.stack([4 * x, 5 * y, 2 * (x + y)], -1).astype(np.uint8)
    f[8:24, 3 * k : 3 * k + 16] = 255 - 9 * k
    return f


def rewrap(path, to):
    "The same coded pictures in another container"
    with av.open(str(path)) as a, av.open(str(to), "w") as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        for packet in a.demux(video=0):
            if packet.dts is None:
                continue
            packet.stream = stream
            b.mux(packet)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    "{'mp4', 'mkv', 'ts': (bytes, frames `[N,H,W,3]`)}"
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", [picture(k) for k in range(N)], crf=23, g=6)
    for kind in ("mkv", "ts"):
        rewrap(folder / "a.mp4", folder / f"a.{kind}")
    return {k: ((folder / f"a.{k}").read_bytes(), np.stack(list(Video(folder / f"a.{k}")))) for k in ("mp4", "mkv", "ts")}


def read_video(path, out):
    "A store made while the frames come, as `hcil_prepare` makes it; the frames once more in order, and three by number: `[n,H,W,3]`"
    with Video(path) as v:
        write_store(Path(out) / "store.zip", (f[:48, :48] for f in v), dict(video="v"))  # damage may show when half is written
        try:
            frames = np.stack(list(v))
            assert len(frames) == len(v) == len(CropStore(Path(out) / "store.zip")), f"{len(v)} announced, {len(frames)} came"
            some = [len(v) - 1, 0, len(v) // 2]
            np.testing.assert_array_equal(v.get(some), frames[some])
        except VideoError as e:
            raise AssertionError(f"{path}: read once, but not twice: {e}") from None
    return frames


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_videos(kind, videos, worker, tmp_path):
    data, frames = videos[kind]
    results, out, changed = [], tmp_path / "out", {}
    for name, bad in damaged(data, 70, kind):
        path = tmp_path / "in" / f"{name}.{kind}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bad)
        got, text = outcome(worker, read_video, path, out)
        assert not text or path.name in text, f"no file is named: {text}"
        left = [Path(p).name for p in tree(out)]
        assert left == ([] if text else ["store.zip"]), f"{name} left {left}"
        (out / "store.zip").unlink(missing_ok=True)
        if not text and len(got) != len(frames):
            changed[name] = len(got)
        results.append((name, text))
    tally(results)
    print(f"{kind}: another number of frames, decoded without an error: {changed}")
    if kind == "ts":
        return  # a stream of packets does not know how long it should be
    assert not [n for n in changed if n.startswith("cut")], f"cut, but not noticed: {changed}"
    assert len(changed) <= UNNOTICED * len(results), f"too many other numbers of frames: {changed}"


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_harmless_video(kind, videos, worker, tmp_path):
    "Bytes behind the end change nothing: the frames come out as they are"
    data, frames = videos[kind]
    for k, more in enumerate((bytes(188), b"\xff" * 1000)):
        path = tmp_path / f"{k}.{kind}"
        path.write_bytes(data + more)
        got, text = outcome(worker, read_video, path, tmp_path / "out")
        if not text:
            np.testing.assert_array_equal(got, frames)
        (tmp_path / "out/store.zip").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 5000,
        b"#EXTM3U\nhttp://example.com/a.ts\n",
        b"ffconcat version 1.0\nfile a.mp4\n",
        b"\x1f\x8b" + b"\0" * 99,
        b"<html>",
        b"\0\0\0\x18ftypmp42",
        b"\x1a\x45\xdf\xa3",
        "é\0".encode() * 400,
    ],
    ids=range(9),
)
def test_no_video(data, videos, worker, tmp_path):
    "Other files under the name of a video; playlists must not make FFmpeg open anything else"
    (tmp_path / "a.mp4").write_bytes(videos["mp4"][0])  # what a playlist could open
    (tmp_path / "no.mp4").write_bytes(data)
    got, text = outcome(worker, read_video, tmp_path / "no.mp4", tmp_path / "out")
    assert got is None and "no.mp4" in text


# ---------------------------------------------------------------------------------------------- tar shards


def png(k):
    file = io.BytesIO()
    Image.fromarray(picture(k, 40, 40)).save(file, "PNG")
    return file.getvalue()


def member(name, data=b"", **more):
    "(header, content) of one entry"
    m = tarfile.TarInfo(name)
    m.size = len(data)
    for k, v in more.items():
        setattr(m, k, v)
    return m, data


def shard(*others):
    "A plain tar with N frames of one face, and what else is given"
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for k in range(N):
            tar.addfile(*(lambda m, d: (m, io.BytesIO(d)))(*member(f"./7/real/3/{2 * k}.png", png(k))))
        for m, data in others:
            tar.addfile(m, io.BytesIO(data))
    return file.getvalue()


def read_shard(root):
    "{video: (numbers, frames or the sentence of its error)} of a WildDeepfake folder"
    df, found = manifest("wild", root), {}
    for row in df.itertuples():
        try:
            v = open_video(row, root)
            found[row.video] = v.numbers, v.get(range(len(v)))
        except VideoError as e:
            found[row.video] = None, str(e)
    return found


def in_shard(root, data):
    "Put a shard where WildDeepfake has it; a small sound one is beside it"
    for side in ("real_train", "fake_test"):
        (root / side).mkdir(parents=True, exist_ok=True)
    (root / "real_train/7.tar.gz").write_bytes(data)
    return root


def true_frames(found):
    "Whatever was read is what was written, number by number: PNGs and tar headers carry checksums"
    for numbers, frames in found.values():
        if numbers is None:
            assert len(frames.splitlines()) == 1 and ".png" in frames or ".tar" in frames, frames
            continue
        for k, f in zip(numbers, frames, strict=False):
            np.testing.assert_array_equal(f, picture(k // 2, 40, 40))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("zipped", [False, True])
def test_shards(zipped, worker, tmp_path):
    data, results = shard(), []
    data = gzip.compress(data, mtime=0) if zipped else data
    for name, bad in damaged(data, 42, f"tar/{zipped}"):
        root = in_shard(tmp_path / name / "wild", bad)
        before = tree(tmp_path / name)
        found, text = outcome(worker, read_shard, root)
        assert tree(tmp_path / name) == before, f"{name} changed files"
        assert not text or "wild" in text
        if not text:
            true_frames(found)
        results.append((name, text or " ".join(f for numbers, f in found.values() if numbers is None)))
    tally(results, least=0 if zipped else 1)  # gzip's checksum notices nearly everything


LINK, HARD, DEVICE, FIFO = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE
HOSTILE = dict(
    up=[("../../escaped.png", png(0), {})],
    up_inside=[("7/real/../../../escaped.png", png(0), {})],
    up_dots=[("./7/real/3/../../../../escaped.png", png(0), {})],
    absolute=[("{outside}/escaped.png", png(0), {})],
    link=[("7/real/4/0.png", b"", dict(type=LINK, linkname="{outside}/secret.png"))],
    hard=[("7/real/4/0.png", b"", dict(type=HARD, linkname="../../secret.png"))],
    through_link=[("7/real/4", b"", dict(type=LINK, linkname="{outside}")), ("7/real/4/0.png", png(0), {})],
    link_over=[("7/real/3/0.png", b"", dict(type=LINK, linkname="{outside}/secret.png"))],
    device=[("7/real/4/0.png", b"", dict(type=DEVICE, devmajor=1, devminor=5))],
    fifo=[("7/real/4/0.png", b"", dict(type=FIFO))],
    backslash=[("7\\real\\4\\..\\..\\0.png", png(0), {})],
    control=[("7/real/4/0\n.png", png(0), {})],
    long=[("7/real/" + "x" * 5000 + "/0.png", png(0), {})],
    number=[("7/real/4/" + "9" * 40 + ".png", png(0), {})],
    folder=[("7/real/4/0.png", b"", dict(type=tarfile.DIRTYPE))],
    setuid=[("7/real/5", b"", dict(type=tarfile.DIRTYPE, mode=0o7777))],
    deep=[("/".join(["a"] * 2000) + "/0.png", png(0), {})],
    unicode=[("7/real/\u202e4/0.png", png(0), {})],
)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_members(what, zipped, worker, tmp_path):
    "Members that want to be elsewhere are ignored: nothing is written, no link followed, and the sound sequence beside them can be read"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(png(11))
    fill = lambda v: v.format(outside=outside) if isinstance(v, str) else v
    data = shard(*(member(fill(n), d, **{k: fill(v) for k, v in more.items()}) for n, d, more in HOSTILE[what]))
    root = in_shard(tmp_path / "in/wild", gzip.compress(data, 1) if zipped else data)
    before = tree(tmp_path)
    found, text = outcome(worker, read_shard, root)
    assert tree(tmp_path) == before
    assert text == "" and len(found.pop("real_train/7/3")[1]) == N, text
    if what == "long":
        return  # a name of 5000 letters is only a name: see `test_prepare`
    assert found.keys() <= {"real_train/7/4"}
    if found:
        np.testing.assert_array_equal(found["real_train/7/4"][1][0], picture(0, 40, 40))  # of the tar, not of the secret


def forged(size, kind=b"0", name=b"7/real/3/0.png"):
    "A tar header with a sound checksum that claims any size"
    h = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT)[:512])
    h[:100], h[156:157] = name.ljust(100, b"\0"), kind
    h[124:136] = b"%011o\0" % size if 0 <= size < 8**11 else (b"\x80" if size > 0 else b"\xff") + (size % 2**88).to_bytes(11, "big")
    h[148:156] = b" " * 8
    h[148:156] = b"%06o\0 " % sum(h)
    return bytes(h)


def huge_png():
    "A PNG of a few hundred bytes that claims 12000 by 12000 pixels, checksum and all: more than we want, less than Pillow refuses"
    data = bytearray(png(0))
    data[16:24] = (12000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def zeros(n):
    "`n` times 32 MB of zeros, as gzip members one behind the other"
    return gzip.compress(bytes(32 << 20), 9) * n


def many(n):
    "`n` times a tar member of 32 MB of zeros, which a few kB hold"
    return gzip.compress(forged(32 << 20) + bytes(32 << 20), 9) * n


BOMBS = dict(  # what lies there, and a word of the sentence
    exa=(lambda: forged(2**60) + bytes(1024), "claims"),
    negative=(lambda: forged(-512) + bytes(1024), ""),
    giant=(lambda: forged(8**11 - 1) + bytes(1024), "claims"),
    long_name=(lambda: forged(2**33, b"L") + bytes(1024), "absurd size"),
    pax=(lambda: forged(2**33, b"x") + bytes(1024), "absurd size"),
    gnu_sparse=(lambda: forged(1 << 20, b"S") + bytes(1024), ""),
    self_loop=(lambda: forged(0, b"1") + bytes(1024), ""),
    gz_zeros=(lambda: zeros(100), ""),
    gz_member=(lambda: gzip.compress(forged(2 << 30)) + zeros(64), "claims"),
    gz_members=(lambda: many(64), "far more"),
    gz_name=(lambda: gzip.compress(forged(2 << 30, b"L")) + zeros(64), "absurd size"),
    gz_nested=(lambda: gzip.compress(gzip.compress(shard())), ""),
    gz_cut=(lambda: gzip.compress(shard())[:-9], ""),
    gz_trailer=(lambda: gzip.compress(shard())[:-8] + b"\1" * 8, "CRC"),
    gz_many=(lambda: gzip.compress(b"") * 5000, ""),
    empty=(lambda: b"", ""),
    zeros=(lambda: bytes(1 << 20), ""),
    text=(lambda: b"hello " * 400, ""),
    pixels=(lambda: shard(member("7/real/4/0.png", huge_png())), "12000 × 12000"),
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", BOMBS)
def test_bombs(what, worker, tmp_path):
    "Sizes nobody should believe: a sentence, in bounded time and memory"
    (make, word), held = BOMBS[what], worker.call(memory)
    root = in_shard(tmp_path / "wild", make())
    before = tree(tmp_path)
    found, text = outcome(worker, read_shard, root)
    assert tree(tmp_path) == before and worker.call(memory) < held + MEMORY
    if what == "pixels":
        text = found["real_train/7/4"][1]
    assert text and word in text, f"{text!r}, {found and list(found)}"


# ---------------------------------------------------------------------------------------------- lists


def touch(root, *names):
    for n in names:
        (root / n).parent.mkdir(parents=True, exist_ok=True)
        (root / n).write_bytes(b"\0")


def ff(root):
    "A tiny FaceForensics++, its videos empty shells; the list to damage"
    pairs = dict(train=[["071", "054"], ["087", "081"]], val=[["720", "672"]], test=[["953", "974"]])
    for s, p in pairs.items():
        touch(root, f"splits/{s}.json")
        (root / f"splits/{s}.json").write_text(json.dumps(p))
    for a, b in (d for ps in pairs.values() for p in ps for d in (p, p[::-1])):
        touch(root, f"original_sequences/youtube/c23/videos/{a}.mp4", f"manipulated_sequences/Deepfakes/c23/videos/{a}_{b}.mp4")
    return root / "splits/train.json"


def celeb(root):
    "A tiny Celeb-DF v2"
    reals = [f"Celeb-real/id{i}_000{k}.mp4" for i in range(6) for k in range(3)]
    fakes = [f"Celeb-synthesis/id{i}_id{(i + 1) % 6}_000{k}.mp4" for i in range(6) for k in range(3)]
    tubes = [f"YouTube-real/0000{k}.mp4" for k in range(4)]
    touch(root, *reals, *fakes, *tubes)
    test = [f"1 {p}" for p in reals[:3] + tubes[:1]] + [f"0 {p}" for p in fakes[:3]]
    (root / "List_of_testing_videos.txt").write_text("\n".join(test))
    return root / "List_of_testing_videos.txt"


def dfdc(root):
    "A tiny DFDC-Preview"
    entries = {}
    for i in range(6):
        s, a, b = ("test" if i < 2 else "train"), f"10{i}", f"10{(i + 1) % 6}"
        entries[f"original_videos/{a}/{a}_A_001.mp4"] = dict(label="real", set=s, augmentations=[], target_id=None, swapped_id=None)
        entries[f"method_A/{a}/{a}_A/{b}_{a}_A_001.mp4"] = dict(label="fake", set=s, augmentations=[], target_id=a, swapped_id=b)
    touch(root, *entries)
    (root / "dataset.json").write_text(json.dumps(entries))
    return root / "dataset.json"


LISTS = {"ff++": ff, "celeb-df": celeb, "dfdc-p": dfdc}
STRANGE = [
    None,
    True,
    -1,
    2**80,
    1e308,
    math.nan,
    "",
    "..",
    "../../../outside/bait",
    "/etc/passwd",
    "a\nb",
    "\ud800",
    "x" * 10**5,
    "071",
    [],
    [[]],
    {},
    {"label": "real"},
    [["071", "071"]],
    {"a": [1] * 3},
]


def nodes(x, at=()):
    "The ways to all values in a JSON"
    yield at
    for k, v in x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, list) else ():
        yield from nodes(v, (*at, k))


def changed(r, text):
    "JSON with one value or key replaced by a strange one"
    x, new = json.loads(text), r.choice(STRANGE)
    *way, last = r.choice([n for n in nodes(x) if n])
    inner = x
    for k in way:
        inner = inner[k]
    if isinstance(inner, dict) and isinstance(new, str) and r.random() < 0.5:
        inner[new] = inner.pop(last)
    else:
        inner[last] = new
    return json.dumps(x)


def line(r, text):
    "A list with one line replaced"
    lines = text.split("\n")
    strange = [str(s).encode("utf-8", "replace").decode() for s in STRANGE]
    lines[r.randrange(len(lines))] = r.choice(
        [*strange, "1", "2 Celeb-real/id0_0000.mp4", "1 Celeb-real/../../outside/bait.mp4", "0 /etc/passwd"]
    )
    return "\n".join(lines)


def whole_manifest(name, root):
    "A manifest in which nothing leads out of the root"
    df = manifest(name, root)
    assert list(df.columns) == COLUMNS and df.video.is_unique and len(df)
    assert set(df.label) <= {0, 1} and set(df.split) <= {"train", "val", "test"} and (df.label == (df.method != "real")).all()
    for r in df.itertuples():
        assert ".." not in Path(r.video).parts and not r.video.startswith("/"), r.video
        assert (Path(root) / r.path).resolve().is_relative_to(Path(root).resolve()) and (Path(root) / r.path).is_file(), r.path
    assert set(df.original) - {""} <= set(df.video)
    if name == "ff++":
        assert all(df[df.target == t].split.nunique() == 1 for t in df.target.unique())
    return len(df)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", LISTS)
def test_lists(name, worker, tmp_path):
    touch(tmp_path, "outside/bait.mp4")
    path = LISTS[name](tmp_path / "root")
    data, results = path.read_bytes(), []
    full, text = outcome(worker, whole_manifest, name, tmp_path / "root")
    assert text == "" and full
    edit = line if name == "celeb-df" else changed
    edits = [(f"edit_{k}", edit(random.Random(f"{name}/{k}"), data.decode()).encode("utf-8", "surrogatepass")) for k in range(30)]
    for what, bad in [*damaged(data, 14, name), *edits]:
        path.write_bytes(bad)
        before = tree(tmp_path)
        n, text = outcome(worker, whole_manifest, name, tmp_path / "root")
        assert tree(tmp_path) == before
        results.append((what, text))
    tally(results, least=0)  # the list as it was is the result that must be possible


@pytest.mark.parametrize("name", ["ff++", "dfdc-p"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[" * 10**5,
        '{"a":' * 10**5,
        "[1e999]",
        "null",
        '"x"',
        "9" * 10**5,
        "\ufeff[]",
        '{"a":1,"a":2}',
        '[["071","054"],["071","054"]]',
        '[["071","054"],["054","087"]]',
    ],
    ids=range(12),
)
def test_no_lists(name, text, worker, tmp_path):
    "Lists that are none"
    LISTS[name](tmp_path).write_text(text, encoding="utf-8")
    n, sentence = outcome(worker, whole_manifest, name, tmp_path)
    assert n is None and sentence


def test_twice(worker, tmp_path):
    "A video that stands twice in dataset.json, once in train and once in test, is refused"
    path = dfdc(tmp_path)
    key, value = next(iter(json.loads(path.read_text()).items()))
    path.write_text(path.read_text()[:-1] + f", {json.dumps(key)}: {json.dumps(value | dict(set='train'))}}}")
    n, text = outcome(worker, whole_manifest, "dfdc-p", tmp_path)
    assert n is None and "twice" in text


@pytest.mark.parametrize("text", ["[]", '{"counts": 3}', "{", "\0", '{"counts": {"train ids": "many"}}'])
def test_twin_note(text, worker, tmp_path):
    "A damaged TWIN.json: a sentence, or it is not needed"
    ff(tmp_path)
    (tmp_path / "TWIN.json").write_text(text)
    outcome(worker, whole_manifest, "ff++", tmp_path)


# ---------------------------------------------------------------------------------------------- crop stores

META = dict(video="a/b", source="b.mp4, 1 bytes", options=dict(size=48, scale=1.3), numbers=list(range(N)), boxes=[[0.0, 0, 48, 48]] * N)


def read_store(path):
    "(meta, JPEGs, pictures) of a store that passes the cheap check"
    s = CropStore(path)
    return plain(s.meta), s.read(range(len(s))), s.get(range(len(s))).numpy()


@pytest.mark.timeout(300)
def test_stores(worker, tmp_path):
    "Every byte of a store is covered: what can be read is what was written, and a damaged one is made again"
    write_store(tmp_path / "good.zip", [picture(k)[:48, :48] for k in range(N)], META)
    data, results = (tmp_path / "good.zip").read_bytes(), []
    meta, jpegs, pictures = read_store(tmp_path / "good.zip")
    path = tmp_path / "bad" / "store.zip"
    path.parent.mkdir()
    for what, bad in damaged(data, 140, "store"):
        path.write_bytes(bad)
        got, text = outcome(worker, read_store, path)
        assert list(tree(path.parent)) == [str(path)]
        deep, _ = outcome(worker, verify_store, path)
        if text:
            assert "store.zip" in text and deep, f"{what}: {text}, but the thorough check says nothing"
        else:
            assert got[0] == meta and got[1] == jpegs, what
            np.testing.assert_array_equal(got[2], pictures)
        why = worker.call(why_make, path, META["source"], META["options"], timeout=TIMEOUT)
        assert why in ("", "damaged"), why
        results.append((what, text))
    tally(results)


@pytest.mark.parametrize("data", [b"", b"PK\5\6" + bytes(18), b"PK\3\4", bytes(999), b"\xff\xd8\xff"], ids=range(5))
def test_no_stores(data, worker, tmp_path):
    "Other files under the name of a store"
    (tmp_path / "no.zip").write_bytes(data)
    got, text = outcome(worker, read_store, tmp_path / "no.zip")
    assert got is None and "no.zip" in text


# ---------------------------------------------------------------------------------------------- all of it


@pytest.mark.timeout(300)
def test_prepare(tmp_path):
    "A damaged picture, pictures of two sizes and a name too long for a file cost their sequence, and nothing else"
    bad = png(0)[:60] + bytes(20) + png(0)[80:]
    small = io.BytesIO()
    Image.fromarray(picture(0)[:20, :20]).save(small, "PNG")
    others = [
        member("7/real/4/0.png", bad),
        *(member(f"7/real/5/{k}.png", png(k)) for k in range(3)),
        member("7/real/5/3.png", small.getvalue()),
        member("7/real/" + "x" * 300 + "/0.png", png(0)),
        member("../../escaped.png", png(0)),
    ]
    root, out = in_shard(tmp_path / "in/wild", shard(*others)), tmp_path / "out"
    before = tree(tmp_path)
    done = prepare("wild", root, out, size=40, timeout=TIMEOUT, readings=dict(val_share=0.0)).set_index("video")
    assert done.problem["real_train/7/3"] == "" and done.frames["real_train/7/3"] == N
    for v in ("real_train/7/4", "real_train/7/" + "x" * 300):
        assert done.problem[v].startswith("failed: ") and len(done.problem[v].splitlines()) == 1, done.problem[v]
    after = tree(tmp_path)
    assert {p: after[p] for p in before} == before, "prepare changed files of the data set"
    stores = {Path(p).relative_to(out).as_posix() for p in after if p.endswith(".zip")}
    assert stores == {f"{v}.zip" for v in done.index if done.problem[v] == ""} and not [p for p in after if p.endswith(".tmp")]
    assert all(verify_store(out / s) == "" for s in stores) and list(read_prepared(out).video) == list(done.index)
