"""Runs programs that work on notebooks, each in a fork of this process, which has imported what most notebooks need

Importing PyTorch and the like takes longer than most notebooks do. Here it is done once, and nothing else is: nothing of ours is imported,
no notebook is read. So each fork begins where a new process would be after the same imports, and what it does to them ends with it.

Orders are lines of JSON from the standard input: a `program` (a file) and its `args`, the folder `cwd`, the environment `env`, and the file
`out` for all that it prints. Each is answered by two lines: the process id, and the exit status. With its input, this process ends too.
"""

from contextlib import suppress
from importlib import import_module
import gc
import json
import os
import runpy
import signal
import sys

LARGE = ("nbdev.test", "nbformat", "nbclient", "facenet_pytorch", "torch._dynamo", "torch.utils.flop_counter", "seaborn", "scipy.stats")
LARGE += ("sklearn.metrics", "matplotlib.pyplot", "matplotlib_inline.backend_inline", "safetensors.torch", "av", "tqdm.auto", "filelock")


def become(order):
    "Turn a fork into the process that `subprocess` would have started"
    os.setsid()
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, order["out"], os.O_WRONLY)):
        opened = os.open(path, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.dup2(1, 2)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
    sys.modules["numpy"].random.seed()  # the one generator that a fork would share with the others
    sys.argv = [order["program"], *order["args"]]
    runpy.run_path(order["program"], run_name="__main__")


def main():
    for name in LARGE:
        with suppress(ImportError):  # the notebook that needs it will say so
            import_module(name)
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        if not (pid := os.fork()):
            return become(order)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
