"""Where processes cannot be started, or /dev/shm is full or closed: tried for real, in a process that gives up its own rights

Each try is one sentence that names the remedy, or it works all the same. Nothing is mocked: the limit on processes is the system's
(RLIMIT_NPROC, which does not bind root, so root becomes somebody else first), and /dev/shm is another one in a namespace of its own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and namespaces of Linux"), pytest.mark.timeout(3600)]

TRIES = """
import os, resource, sys
import torch
from torch.utils.data import Dataset
from hcil.batches import ClipLoader
from hcil.clips import shared_number
from hcil.core import UserError
from hcil.workers import process_pool, Worker

class Items(Dataset):
    epoch = shared_number()                      # as `Clips` has it
    def __len__(self): return 4
    def __getitem__(self, k): return torch.full((1 << 20,), float(k))

def worker():
    with Worker() as w: return w.call(abs, -1, timeout=600)

def pool():
    with process_pool(2) as p: return sum(p.map(abs, [-1, -2]))

def loader():
    return len(list(ClipLoader(Items(), batch_size=2, num_workers=2)))

if __name__ == '__main__':
    if sys.argv[1] == 'processes':
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    for what in (worker, pool, loader):
        try: print(what.__name__, 'works', what())
        except UserError as e: print(what.__name__, type(e).__name__, e)
"""

WORKS = dict(worker="works 1", pool="works 3", loader="works 2")
SENTENCE = "WorkerError helper processes could not be started, or were lost ("
NOT_SHARED = "WorkerError processes cannot share memory here (no /dev/shm): use --workers 0"
REMEDY = "use fewer of them (--workers), and see that /dev/shm is there and not full and that more processes are allowed (ulimit -u)"


def tries(tmp_path, *args, before=()):
    "What each try came to: {name: what it says}"
    script = tmp_path / "tries.py"
    script.write_text(TRIES)
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1", HOME=str(tmp_path))
    r = subprocess.run(
        [*before, sys.executable, "-s", str(script), *args], capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL
    )
    assert r.returncode == 0, r.stderr[-3000:]
    found = dict(line.split(" ", 1) for line in r.stdout.splitlines())
    assert set(found) == set(WORKS), r.stdout
    return found


def in_sentences(found):
    "Each either works or says what to do"
    for name, said in found.items():
        assert said in (WORKS[name], NOT_SHARED) or said.startswith(SENTENCE) and said.endswith(REMEDY), (name, said)
    return [name for name, said in found.items() if said != WORKS[name]]


def test_no_more_processes(tmp_path):
    rights = "+dac_override,+dac_read_search"  # somebody else who may still read root's files
    somebody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps={rights}", f"--ambient-caps={rights}"]
    before = somebody if os.getuid() == 0 else []
    if before and (not shutil.which("setpriv") or subprocess.run([*before, "true"], capture_output=True).returncode):
        pytest.skip("this machine lets root be nobody else")
    assert in_sentences(tries(tmp_path, "processes", before=before)) == ["worker", "pool", "loader"]


@pytest.mark.parametrize("options", ["size=4k", "ro"])
def test_no_room_to_share(tmp_path, options):
    "A /dev/shm that is full (4 kB), and one that is closed"
    mount = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$@"'
    before = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if not shutil.which("unshare") or subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("this machine gives nobody a namespace of their own")
    assert "worker" not in in_sentences(tries(tmp_path, "shared", before=before))  # it shares nothing
