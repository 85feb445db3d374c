"""CUDA code rehearsed on a machine without a GPU

    with Rehearsal() as card:
        net.to("cuda")                      # its numbers stay on the CPU, but every tensor says cuda:0
        with torch.autocast("cuda", torch.bfloat16):
            net(clips.to("cuda")).logits.sum().backward()
    card.waits                              # where the program stopped to wait for the GPU, and why
    card.launches                           # what the GPU would have run: name, bytes, FLOPs, and the line that asked for it

A tensor "on the GPU" is a shell without numbers whose device is cuda:0; the numbers lie on the CPU. All of PyTorch above
the kernels sees a CUDA tensor: autocast applies CUDA's rules, batch norm chooses cuDNN, `.numpy()` refuses. Below,
`Rehearsal` computes on the CPU, and

* refuses what CUDA refuses: tensors of two devices in one operation, a generator of the CPU for numbers of the GPU, ...
* notes what CUDA would wait for: `.item()`, a mask as an index, an upload from memory that is not pinned, ...
* notes every launch: its bytes (each input and output once) and its FLOPs (as torch's own counter has them).

With `Rehearsal(shapes_only=True)` there are no numbers but those of small integers and masks: for counting at full size.

What this can't say: how long anything takes, whether the numbers are right to the last bit, what a kernel of CUDA
refuses for reasons of its own, and anything about several GPUs, streams or nvJPEG.

PyTorch's autograd asks the driver for streams as soon as a graph holds a CUDA tensor. So the last part of this file walks
through the graph in Python: the nodes are PyTorch's own, and so is their order.
"""

import contextlib
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import torch
import torch._dynamo  # which PyTorch imports at some time anyway, and not while torch.cuda is replaced
import torch.cuda.amp.common
from torch.autograd.graph import get_gradient_edge
from torch.optim.optimizer import _foreach_supported_types
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

ROOT = Path(__file__).resolve().parent.parent
CARD = torch.device("cuda:0")
aten = torch.ops.aten

# ---------------------------------------------------------------- a tensor that says it is on the GPU


class OnCard(torch.Tensor):
    "A shell that says cuda:0; its numbers are a tensor of the CPU, or of the meta device"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers):
        layout = dict(strides=numbers.stride(), storage_offset=numbers.storage_offset())
        shell = torch.Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=numbers.dtype, device=CARD, **layout)
        shell.numbers = numbers
        return shell

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func}: a tensor of the rehearsal was used after its end")

    def __repr__(self, **_):
        return f"OnCard({self.numbers!r})"

    def __deepcopy__(self, memo):
        copy = self.detach().clone()
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, self.requires_grad)
        return memo.setdefault(id(self), copy)

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.")

    __array__ = numpy


def on_card(x):
    return isinstance(x, OnCard)


def numbers_of(tree):
    "The same arguments, with numbers instead of shells"
    return tree_map_only(OnCard, lambda t: t.numbers, tree)


def tensors_in(tree):
    return [t for t in tree_leaves(tree) if isinstance(t, torch.Tensor)]


# ---------------------------------------------------------------- one operation, and what CUDA would say to it


class Call:
    "One operation of PyTorch with its arguments"

    def __init__(self, func, args, kwargs):
        self.func, self.args, self.kwargs = func, args, kwargs
        self.name = str(func).removeprefix("aten.")  # e.g. add.Tensor
        self.short = self.name.partition(".")[0]  # e.g. add
        self.tensors = tensors_in((args, kwargs))
        self.reads_card = any(map(on_card, self.tensors))
        device = kwargs.get("device")
        self.asks_for = torch.device(device).type if device is not None else None  # 'cuda', 'cpu' or None
        self.answers_on_card = self.asks_for == "cuda" if device is not None else self.reads_card

    @property
    def index(self):  # tensors that are used as an index
        return tensors_in(self.args[1]) if self.short in INDEXING else []


class DeviceMismatch(RuntimeError):
    "Tensors of two devices where CUDA wants one"


COPIES = ("_to_copy", "copy_", "_foreach_copy_")
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
STRICT = ("cat", "stack", "convolution")  # these refuse a number of the CPU too


def refuse_two_devices(call):
    "CUDA takes from the CPU single numbers, and tensors that are copied or used as an index; nothing else"
    if not call.reads_card or call.short in COPIES + INDEXING:
        return
    strange = [t for t in call.tensors if not on_card(t) and (t.ndim or call.short in STRICT)]
    if strange:
        raise DeviceMismatch(f"{call.name}: expected all tensors on cuda:0, but found {list(strange[0].shape)} on the CPU")


def refuse_generator(call):
    "Random numbers of the GPU come from a generator of the GPU"
    g = call.kwargs.get("generator")
    device = "cuda" if call.answers_on_card else "cpu"
    if g is not None and g.device.type != device:
        raise DeviceMismatch(f"{call.name}: expected a generator of {device}, but found one of {g.device.type}")


COUNTS_FIRST = ("nonzero", "masked_select", "equal", "unique_dim", "unique_consecutive", "_unique2", "bincount")


def reason_to_wait(call):  # text, or None
    "Why the CPU would have to wait until the GPU has done all it was asked for"
    short, uploads = call.short, not call.reads_card and call.asks_for == "cuda"
    if short == "_to_copy" and uploads and not (call.kwargs.get("non_blocking") and is_pinned(call.args[0])):
        return "upload"
    if short == "copy_" and on_card(call.args[0]) != on_card(call.args[1]):
        return "upload" if on_card(call.args[0]) else "download"
    if not call.reads_card:
        return None
    if short == "_to_copy" and call.asks_for == "cpu":
        return "download"
    if any(t.dtype in (torch.bool, torch.uint8) for t in call.index):
        return "mask as index"
    if any(not on_card(t) for t in call.index):
        return "upload of an index"
    if short == "repeat_interleave" and call.kwargs.get("output_size") is None:
        return short
    return {"_local_scalar_dense": "item"}.get(short, short if short in COUNTS_FIRST else None)


def size_in_bytes(tree):
    "Bytes of all tensors; what was only expanded lies in memory once"
    once = lambda t: t.numel() // max(1, torch.Size(n for n, s in zip(t.shape, t.stride(), strict=True) if s == 0).numel())
    return sum(once(t) * t.element_size() for t in tensors_in(tree))


OVERWRITE = ("copy_", "zero_", "fill_", "uniform_", "exponential_", "normal_", "random_", "bernoulli_")


def what_is_read(call):
    "All arguments but those that are only written to: `out=`, and the first one of copies and fillings in place"
    args = call.args[1:] if call.short in OVERWRITE else call.args
    return args, {k: v for k, v in call.kwargs.items() if k != "out"}


FREE = ("_unsafe_view", "_local_scalar_dense", "resize_", "set_", "_fused_sdp_choice", "lift_fresh", "record_stream", "is_same_size")


def is_launch(call):
    "Views and empty tensors cost the GPU nothing"
    empty = call.short.startswith(("empty", "new_empty"))
    return call.answers_on_card and not (empty or call.short in FREE or call.func.is_view or torch.Tag.inplace_view in call.func.tags)


def flops_of(call, out):
    count = flop_registry.get(call.func._overloadpacket)
    return count(*numbers_of(call.args), **numbers_of(call.kwargs), out_val=out) if count else 0


# ---------------------------------------------------------------- computing on the CPU


def cudnn_batch_norm(x, weight, bias, mean, var, training, momentum, eps):
    out, m, v = aten.native_batch_norm(x, weight, bias, mean, var, training, momentum, eps)
    return out, m, v, x.new_empty(0, dtype=torch.uint8)


def cudnn_batch_norm_backward(x, grad, weight, mean, var, saved_mean, saved_var, eps, reserve):
    return aten.native_batch_norm_backward(grad, x, weight, mean, var, saved_mean, saved_var, True, eps, [True] * 3)


def lstm_cell(from_x, from_h, c, bias_x=None, bias_h=None):
    gates = from_x + from_h + (0 if bias_x is None else bias_x + bias_h)
    i, f, g, o = (act(x) for act, x in zip((torch.sigmoid, torch.sigmoid, torch.tanh, torch.sigmoid), gates.chunk(4, 1), strict=True))
    new = f * c + i * g
    return o * new.tanh(), new, torch.cat([i, f, g, o], 1)


def lstm_cell_backward(grad_h, grad_c, c, new, gates, has_bias):
    i, f, g, o = gates.chunk(4, 1)
    t, zero = new.tanh(), torch.zeros_like(new)
    grad_h, grad_c = (zero if x is None else x for x in (grad_h, grad_c))
    d = grad_h * o * (1 - t * t) + grad_c
    d_gates = torch.cat([d * g * i * (1 - i), d * c * f * (1 - f), d * i * (1 - g * g), grad_h * t * o * (1 - o)], 1)
    return d_gates, d * f, d_gates.sum(0) if has_bias else None


ON_CPU = dict(  # what only a GPU has -> the same for the CPU
    cudnn_batch_norm=cudnn_batch_norm,
    cudnn_batch_norm_backward=cudnn_batch_norm_backward,
    _thnn_fused_lstm_cell=lstm_cell,
    _thnn_fused_lstm_cell_backward_impl=lstm_cell_backward,
    _fused_sdp_choice=lambda *args, **kwargs: 0,  # attention by plain products
)


def on_cpu(call):
    "Compute with the numbers"
    args, kwargs = numbers_of((call.args, call.kwargs))
    if call.asks_for == "cuda":
        kwargs = dict(kwargs, device=torch.device("cpu"))
    if any(t.is_meta for t in tensors_in((args, kwargs))):
        return in_shapes(call, args, kwargs)
    return ON_CPU.get(call.short, call.func)(*args, **kwargs)


# ---------------------------------------------------------------- computing with shapes alone

SMALL = 4096  # integers and masks of up to so many elements keep their values


def shape_only(t):
    "What an upload becomes when only shapes count"
    keeps = not t.is_floating_point() and t.numel() <= SMALL
    return t if keeps else torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta")


def places(i):
    "An index for the meta device: a mask becomes the places where it is true; one without values is true everywhere"
    if i is None or i.dtype != torch.bool:
        return [i]
    known = torch.ones(i.shape, dtype=torch.bool) if i.is_meta else i
    return list(known.nonzero(as_tuple=True))


def in_shapes(call, args, kwargs):
    "The operation on the meta device"
    if call.short == "_local_scalar_dense":
        return 0.5 if args[0].is_floating_point() else 1
    if call.short in INDEXING:
        args = (args[0], [j for i in args[1] for j in places(i)], *args[2:])
    if "device" in kwargs:
        kwargs = dict(kwargs, device=torch.device("meta"))
    args, kwargs = tree_map_only(torch.Tensor, lambda t: t.to("meta"), (args, kwargs))
    out = ON_CPU.get(call.short, call.func)(*args, **kwargs)
    return as_cudnn_lays_out(out, args) if call.short.startswith("convolution") else out


def as_cudnn_lays_out(out, args):
    "A convolution answers channels-last if anything it got is"
    last = lambda t: t.ndim == 4 and t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous()
    if not any(map(last, tensors_in(args))):
        return out
    return tree_map_only(torch.Tensor, lambda t: torch.empty_like(t, memory_format=torch.channels_last) if t.ndim == 4 else t, out)


# ---------------------------------------------------------------- the rehearsal


class Wait(NamedTuple):
    why: str  # see `reason_to_wait`
    where: str  # e.g. 'hcil/train.py:171 watch'


class Launch(NamedTuple):
    name: str  # e.g. 'add.Tensor'
    bytes: int
    flops: int
    where: str  # ends in ' (backward)' if autograd asked for it


class Rehearsal(TorchDispatchMode):
    "A pretended GPU, inside of `with`"

    def __init__(self, shapes_only=False):
        super().__init__()
        self.shapes_only, self.stack = shapes_only, contextlib.ExitStack()
        self.made_by, self.node = {}, None  # sequence number of autograd -> line that made the node; the node that runs
        self.clear()

    def clear(self):
        "Forget what was noted so far"
        self.launches, self.waits = [], []

    def __enter__(self):
        self.stack.enter_context(pretended(self))
        self.stack.enter_context(Names(self))
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.stack.close()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        call = Call(func, args, kwargs or {})
        if not call.reads_card and call.asks_for != "cuda":
            return func(*args, **call.kwargs)
        refuse_two_devices(call)
        refuse_generator(call)
        where = self.line()
        if why := reason_to_wait(call):
            self.waits.append(Wait(why, where))
        out = on_cpu(call)
        if is_launch(call):
            self.launches.append(Launch(call.name, size_in_bytes((what_is_read(call), out)), flops_of(call, out), where))
        return self.answer(call, out)

    def answer(self, call, out):
        "Numbers become shells again; what was changed in place stays the tensor that it was"
        if not call.answers_on_card:
            return return_and_correct_aliasing(call.func, call.args, call.kwargs, out) if call.short == "copy_" else out
        if self.shapes_only and not call.reads_card:
            out = tree_map_only(torch.Tensor, shape_only, out)
        out = tree_map_only(torch.Tensor, lambda t: t if on_card(t) else OnCard(t), out)
        return return_and_correct_aliasing(call.func, call.args, call.kwargs, out)

    def wait(self, why):
        self.waits.append(Wait(why, self.line()))

    def line(self):
        "The project's line that runs; in the backward pass the line of the forward pass that it belongs to"
        frame = sys._getframe(1)
        while frame:
            code = frame.f_code
            if self.node is not None and code is walk.__code__:
                return f"{self.made_by.get(self.node._sequence_nr(), '?')} (backward)"
            if is_own(code.co_filename):
                function = code.co_qualname.partition(".<locals>")[0]  # Python 3.12 knows fewer of the inner ones
                where = f"{Path(code.co_filename).relative_to(ROOT)}:{frame.f_lineno} {function}"
                self.made_by[torch._C._autograd._get_sequence_nr() - 1] = where
                return where
            frame = frame.f_back
        return "?"

    def totals(self):  # launches, bytes, flops, waits
        "What a program costs, in four numbers"
        sums = dict(bytes=sum(o.bytes for o in self.launches), flops=sum(o.flops for o in self.launches))
        return dict(launches=len(self.launches)) | sums | dict(waits=len(self.waits))

    def waits_by_line(self):  # {'item, hcil/train.py:171 watch': 4}
        return dict(Counter(f"{w.why}, {w.where}" for w in self.waits))


def is_own(file):
    "Is it a file of this project, and not this one?"
    return file.startswith(str(ROOT)) and "site-packages" not in file and file != __file__


# ---------------------------------------------------------------- torch.cuda, as a machine with one GPU has it


def with_index(device):
    "'cuda' means the current GPU, and PyTorch would ask the driver which one: say cuda:0"
    if isinstance(device, str) and device.startswith("cuda"):
        device = torch.device(device)
    return CARD if isinstance(device, torch.device) and device.type == "cuda" else device


RECURRENT = (torch.lstm, torch.gru)  # in cuDNN's form they talk to the driver: here, cell by cell


class Names(torch.overrides.TorchFunctionMode):
    "Catches, above the operations, names of devices and `tolist`"

    def __init__(self, card):
        super().__init__()
        self.card = card

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.tolist and on_card(args[0]):
            self.card.wait("tolist")
            numbers = args[0].numbers
            return (torch.ones(numbers.shape) if numbers.is_meta else numbers).tolist()
        if "device" in kwargs:
            kwargs["device"] = with_index(kwargs["device"])
        if func in (torch.Tensor.to, torch._C._nn._parse_to):
            args = tuple(map(with_index, args))
        with torch.backends.cudnn.flags(enabled=False) if func in RECURRENT else contextlib.nullcontext():
            return func(*args, **kwargs)


class Event:
    "A mark in a stream: here, nothing takes any time"

    def __init__(self, *args, **kwargs):
        pass

    def record(self, *args):
        pass

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return 0.0


NOTHING = lambda *args, **kwargs: None
ANSWERS = dict(  # what torch.cuda says
    _lazy_init=NOTHING,
    is_available=lambda: True,
    is_initialized=lambda: True,
    device_count=lambda: 1,
    current_device=lambda: 0,
    get_device_name=lambda *args: "a pretended GPU",
    get_device_capability=lambda *args: (9, 0),
    is_bf16_supported=lambda *args, **kwargs: True,
    memory_allocated=lambda *args: 0,
    max_memory_allocated=lambda *args: 0,
    set_device=NOTHING,
    empty_cache=NOTHING,
    reset_peak_memory_stats=NOTHING,
    manual_seed=NOTHING,
    manual_seed_all=NOTHING,
    Event=Event,
)


def is_pinned(t, *args, **kwargs):
    return getattr(t, "pinned_here", False)


def pin(t, *args, **kwargs):
    "A copy that counts as pinned; a real one needs the driver"
    if on_card(t):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor': only dense CPU tensors can be pinned")
    copy = t.detach().clone()
    copy.pinned_here = True
    return copy


def save(real):
    "torch.save writes the numbers"
    return lambda obj, *args, **kwargs: real(tree_map_only(OnCard, lambda t: t.numbers.clone(), obj), *args, **kwargs)


def load(real):
    "torch.load, and up to the GPU with what it read"

    def read(file, map_location=None, **kwargs):
        found, device = real(file, map_location="cpu", **kwargs), torch.device(map_location or "cpu")
        return tree_map_only(torch.Tensor, OnCard, found) if device.type == "cuda" else found

    return read


def enter_no_grad(mode):
    "Shells cannot be made in inference mode: `torch.inference_mode` only turns gradients off here"
    mode.before = torch.is_grad_enabled()
    torch.set_grad_enabled(not mode.mode)


def leave_no_grad(mode, *error):
    torch.set_grad_enabled(mode.before)


def replacements(card):  # (owner, name, value)
    "What is different while the rehearsal lasts"
    yield from ((torch.cuda, name, value) for name, value in ANSWERS.items())
    yield torch.cuda, "synchronize", lambda *args: card.wait("synchronize")
    yield torch.cuda.amp.common, "amp_definitely_not_available", lambda: False
    yield torch.accelerator, "is_available", lambda: True
    yield torch.accelerator, "current_accelerator", lambda *args, **kwargs: torch.device("cuda")
    yield torch.autograd, "backward", lambda *args, **kwargs: backward(card, *args, **kwargs)
    yield torch.autograd, "grad", lambda *args, **kwargs: grad(card, *args, **kwargs)
    yield torch.inference_mode, "__enter__", enter_no_grad
    yield torch.inference_mode, "__exit__", leave_no_grad
    yield torch, "save", save(torch.save)
    yield torch, "load", load(torch.load)
    yield torch.nn.Module, "_apply", swapping(torch.nn.Module._apply)
    yield torch.Tensor, "cuda", lambda t, *args, **kwargs: t.to("cuda")
    yield torch.Tensor, "pin_memory", pin
    yield torch.Tensor, "is_pinned", is_pinned


@contextlib.contextmanager
def replaced(owner, name, value):
    had, old = name in vars(owner), getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, old) if had else delattr(owner, name)


@contextlib.contextmanager
def switched(read, write, value):
    "A switch of PyTorch's, put back in the end"
    old = read()
    write(value)
    try:
        yield
    finally:
        write(old)


def swapping(apply):
    "`module.to` puts a shell in the place of each parameter, and the parameter stays the same object"
    future = torch.__future__

    def to(*args, **kwargs):
        with switched(future.get_swap_module_params_on_conversion, future.set_swap_module_params_on_conversion, True):
            return apply(*args, **kwargs)

    return to


@contextlib.contextmanager
def pretended(card):
    "All of it: a guard that does nothing, switches, replaced names, and Adam's fast form also for shells"
    torch._C._ensureCUDADeviceGuardSet()
    with contextlib.ExitStack() as stack:
        # torch.tensor(..., device='cuda') is made on the CPU, then uploaded
        stack.enter_context(switched(torch._C._only_lift_cpu_tensors, torch._C._set_only_lift_cpu_tensors, True))
        for owner, name, value in replacements(card):
            stack.enter_context(replaced(owner, name, value))
        _foreach_supported_types.append(OnCard)
        stack.callback(_foreach_supported_types.remove, OnCard)
        yield


# ---------------------------------------------------------------- autograd, without asking the driver


def as_list(x):
    return [x] if isinstance(x, torch.Tensor) else list(x)


def backward(card, tensors, grad_tensors=None, retain_graph=None, create_graph=False, inputs=None):
    "torch.autograd.backward: gradients are added to `.grad`"
    inputs = None if inputs is None else as_list(inputs)
    walk(card, as_list(tensors), grad_tensors, inputs, create_graph, accumulate=True)


def grad(card, outputs, inputs, grad_outputs=None, retain_graph=None, create_graph=False, allow_unused=None, materialize_grads=False):
    "torch.autograd.grad: gradients are returned"
    inputs = as_list(inputs)
    found = walk(card, as_list(outputs), grad_outputs, inputs, create_graph, accumulate=False)
    if materialize_grads:
        return tuple(torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True))
    if not allow_unused and any(g is None for g in found):
        raise RuntimeError("One of the differentiated Tensors appears to not have been used in the graph")
    return tuple(found)


def start(out, grad):
    "The node to begin with, the number of its output, and the gradient that arrives there"
    if not out.requires_grad:
        raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
    if grad is None and out.numel() != 1:
        raise RuntimeError("grad can be implicitly created only for scalar outputs")
    edge = get_gradient_edge(out)
    return edge.node, edge.output_nr, torch.ones_like(out) if grad is None else grad


def is_leaf(node):
    return node.name() == "torch::autograd::AccumulateGrad"


def in_order(roots):
    "All nodes below, each before those that it hands its gradients to: younger ones first, leaves last"
    seen, todo = set(), list(roots)
    while todo:
        if (node := todo.pop()) not in seen:
            seen.add(node)
            todo += [below for below, _ in node.next_functions if below is not None]
    return sorted(seen, key=lambda node: (is_leaf(node), -node._sequence_nr()))


def that_lead_to(wanted, nodes):
    "The nodes below which there is a wanted one"
    useful = set()
    for node in reversed(nodes):
        if any(below in useful or below in wanted for below, _ in node.next_functions):
            useful.add(node)
    return useful


def walk(card, outputs, grads, inputs, create_graph, accumulate):  # gradients of the inputs
    "Hand gradients down the graph"
    grads = [None] * len(outputs) if grads is None else as_list(grads)
    begin = [start(out, g) for out, g in zip(outputs, grads, strict=True)]
    edges = [get_gradient_edge(x) for x in inputs or []]
    wanted, arrived, found = {e.node for e in edges}, defaultdict(dict), {}
    nodes = in_order([node for node, _, _ in begin])
    useful = set(nodes) if inputs is None else that_lead_to(wanted, nodes)
    with torch.set_grad_enabled(create_graph):
        for node, slot, g in begin:
            give(arrived[node], node, slot, g)
        for card.node in nodes:
            here = arrived.pop(card.node, {})
            found |= {(card.node, slot): g for slot, g in here.items()} if card.node in wanted else {}
            if is_leaf(card.node):
                if here and accumulate and (inputs is None or card.node in wanted):
                    add_to_leaf(card.node.variable, here[0])
            elif here and card.node in useful:
                for (below, slot), g in zip(card.node.next_functions, run(card.node, here), strict=False):
                    if below is not None and g is not None:
                        give(arrived[below], below, slot, g)
    card.node = None
    return [found.get((e.node, e.output_nr)) for e in edges]


def run(node, here):  # a gradient or None for each of `node.next_functions`
    "One node of PyTorch's"
    meta = node._input_metadata
    grads = [here.get(slot) for slot in range(max(1, len(meta)))]
    if not hasattr(type(node), "_forward_cls"):
        out = node(*grads)
    else:  # an autograd.Function in Python gets zeros instead of None
        out = node.apply(
            *(torch.zeros(m.shape, dtype=m.dtype, device=m.device) if g is None else g for g, m in zip(grads, meta, strict=True))
        )
    return out if isinstance(out, tuple) else (out,)


def give(arrived, node, slot, grad):
    "Add a gradient to those that arrived, in the shape and type of the forward pass"
    if slot < len(node._input_metadata):
        grad = fitting(grad, node, node._input_metadata[slot])
    arrived[slot] = arrived[slot] + grad if slot in arrived else grad


def fitting(grad, node, meta):
    "What PyTorch checks on the way"
    if grad.shape != meta.shape:
        grad = grad.sum_to_size(meta.shape)
    if grad.device.type != meta.device.type:
        raise DeviceMismatch(f"{node.name()}: a gradient on {grad.device} for a tensor on {meta.device}")
    return grad if grad.dtype == meta.dtype else grad.to(meta.dtype)


def add_to_leaf(leaf, grad):
    if on_card(leaf) != on_card(grad):
        raise DeviceMismatch(f"a gradient on {grad.device} for a leaf on {leaf.device}")
    if leaf.grad is not None:
        leaf.grad = leaf.grad.add_(grad.detach())
    else:
        leaf.grad = grad.detach() if grad.stride() == leaf.stride() else torch.empty_like(leaf).copy_(grad.detach())
