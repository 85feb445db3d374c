"The pretended GPU itself: it refuses what CUDA refuses, sees each wait, counts exactly, and its gradients are the CPU's"

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from rehearsal import DeviceMismatch, Rehearsal


@pytest.fixture
def card():
    with Rehearsal() as card:
        yield card


def same(on_card, on_cpu, **tolerance):
    assert on_card.device == torch.device("cuda:0")
    assert_close(on_card.numbers, on_cpu, **tolerance)


# ---------------------------------------------------------------- what CUDA refuses

cpu = lambda *shape: torch.ones(shape)
gpu = lambda *shape: torch.ones(shape, device="cuda")

REFUSED = dict(
    sum=lambda: gpu(2) + cpu(2),
    product=lambda: cpu(2, 2) @ gpu(2, 2),
    cat=lambda: torch.cat([gpu(2), cpu(2)]),
    number_in_stack=lambda: torch.stack([gpu(), cpu()]),
    layer=lambda: nn.Linear(2, 2)(gpu(1, 2)),
    in_place=lambda: cpu(2).add_(gpu(2)),
    where=lambda: torch.where(gpu(2) > 0, cpu(2), gpu(2)),
    mask_of_the_gpu=lambda: cpu(2).masked_fill(gpu(2) > 0, 1.0),
    generator=lambda: torch.randn(2, device="cuda", generator=torch.Generator()),
    generator_in_place=lambda: gpu(2).normal_(generator=torch.Generator()),
)


@pytest.mark.parametrize("program", REFUSED)
def test_refuses_two_devices(card, program):
    with pytest.raises(DeviceMismatch):
        REFUSED[program]()


def test_takes_what_cuda_takes(card):
    "Single numbers of the CPU, indices of the CPU, copies both ways"
    x = gpu(3)
    same(x * torch.tensor(2.0), torch.full((3,), 2.0))
    same(x[torch.tensor([0, 2])], cpu(2))
    same(x.copy_(cpu(3)), cpu(3))
    assert torch.equal(torch.zeros(3).copy_(x), cpu(3))


def test_refuses_numpy(card):
    with pytest.raises(TypeError, match="to numpy"):
        gpu(2).numpy()
    assert gpu(2).cpu().numpy().tolist() == [1, 1]


def test_refuses_a_gradient_of_another_device(card):
    x = gpu(2).requires_grad_()
    with pytest.raises(DeviceMismatch):
        torch.autograd.backward((2 * x), [cpu(2)])


def test_refuses_to_pin_what_is_on_the_gpu(card):
    with pytest.raises(RuntimeError, match="cannot pin"):
        gpu(2).pin_memory()


# ---------------------------------------------------------------- what CUDA waits for

WAITS = dict(
    item=("item", lambda x: x.sum().item()),
    number=("item", lambda x: float(x.sum())),
    condition=("item", lambda x: bool(x.any())),
    tolist=("tolist", lambda x: x.tolist()),
    download=("download", lambda x: x.cpu()),
    download_in_place=("download", lambda x: torch.zeros(4).copy_(x)),
    mask=("mask as index", lambda x: x[x > 0]),
    mask_in_place=("mask as index", lambda x: x.index_put_((x > 0,), x.sum())),
    index=("upload of an index", lambda x: x[torch.tensor([1])]),
    nonzero=("nonzero", lambda x: x.nonzero()),
    upload=("upload", lambda x: torch.ones(2).to("cuda")),
    literal=("upload", lambda x: torch.tensor([1.0], device="cuda")),
    upload_in_place=("upload", lambda x: x.copy_(torch.zeros(4))),
    not_pinned=("upload", lambda x: torch.ones(2).to("cuda", non_blocking=True)),
    blocking=("upload", lambda x: torch.ones(2).pin_memory().cuda()),
    synchronize=("synchronize", lambda x: torch.cuda.synchronize()),
)


@pytest.mark.parametrize("program", WAITS)
def test_sees_a_wait(card, program):
    why, run = WAITS[program]
    x = gpu(4)
    card.clear()
    run(x)
    assert [w.why for w in card.waits] == [why]
    assert card.waits[0].where.startswith("tests/test_rehearsal.py:") and card.waits[0].where.endswith("<lambda>")


NO_WAITS = dict(
    arithmetic=lambda x: (x * 2 + 1).sum(),
    made_there=lambda x: torch.arange(5, device="cuda").repeat_interleave(2),
    pinned=lambda x: torch.ones(2).pin_memory().to("cuda", non_blocking=True),
    where=lambda x: x.where(x > 0, 0.0),
    index_there=lambda x: x[torch.zeros(2, dtype=torch.long, device="cuda")],
    shape=lambda x: x.view(2, 2).shape,
)


@pytest.mark.parametrize("program", NO_WAITS)
def test_sees_no_wait_where_there_is_none(card, program):
    x = gpu(4)
    card.clear()
    NO_WAITS[program](x)
    assert card.waits == []


def test_waits_by_line(card):
    for _ in range(3):
        gpu(2).sum().item()
    (line,) = card.waits_by_line().items()
    assert line[0].startswith("item, tests/test_rehearsal.py:") and line[1] == 3


# ---------------------------------------------------------------- counting


def test_counts_a_small_program_exactly(card):
    a, b = gpu(10, 20), gpu(20, 30)
    card.clear()
    c = (a @ b).view(300)  # reads 200 and 600 numbers, writes 300
    c += 1  # reads and writes 300
    c.relu()
    assert [o.name for o in card.launches] == ["mm.default", "add_.Tensor", "relu.default"]
    assert [o.bytes for o in card.launches] == [4 * 1100, 4 * 600, 4 * 600]
    assert [o.flops for o in card.launches] == [2 * 10 * 20 * 30, 0, 0]
    assert card.totals() == dict(launches=3, bytes=4 * 2300, flops=12000, waits=0)


def test_counts_what_is_expanded_once(card):
    x, y = gpu(1, 5), gpu(4, 5)
    card.clear()
    x.expand(4, 5) * y
    assert card.totals()["bytes"] == 4 * (5 + 20 + 20)


def test_counts_nothing_on_the_cpu(card):
    (cpu(3) + 1).sum().item()
    assert card.totals() == dict(launches=0, bytes=0, flops=0, waits=0)


def test_backward_knows_the_line_of_its_forward(card):
    x = gpu(3).requires_grad_()
    y = x.exp()
    z = y.sum()
    card.clear()
    z.backward()
    lines = {o.name: int(o.where.split(":")[1].split()[0]) for o in card.launches}
    assert all(o.where.endswith("(backward)") for o in card.launches if o.name == "mul.Tensor")
    first = test_backward_knows_the_line_of_its_forward.__code__.co_firstlineno
    assert lines["mul.Tensor"] == first + 2


# ---------------------------------------------------------------- the numbers are the CPU's


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        return 2 * x, 2 * y

    @staticmethod
    def backward(ctx, dx, dy):
        return 2 * dx, 2 * dy


def in_place(x):
    y = x * 1
    y[:, 1:] *= 3
    y.unsqueeze_(0)
    return y.sin()


def parts(x):
    a, b, _ = x.chunk(3, 1)
    return torch.cat([a * b, a, a.expand_as(b)], 1)


PROGRAMS = dict(
    shared=lambda x: x * x + x.exp().mean(0) - x.T @ x * x.mean(),
    function=lambda x: Twice.apply(x, x.sin())[0],  # the other output has no gradient
    in_place=in_place,
    parts=parts,
    mask=lambda x: x[x > 0] ** 2,
    double=lambda x: torch.autograd.grad((x**3).sum(), x, create_graph=True)[0],
    half=lambda x: x.bfloat16() * x,
)


@pytest.mark.parametrize("program", PROGRAMS)
def test_gradients_are_those_of_the_cpu(program):
    torch.manual_seed(0)
    x = torch.randn(6, 6, requires_grad=True)
    y = PROGRAMS[program](x)
    (expected,) = torch.autograd.grad(y.square().sum(), x)
    with Rehearsal():
        z = x.detach().cuda().requires_grad_()
        (PROGRAMS[program](z).square().sum()).backward()
        same(PROGRAMS[program](z).detach(), y.detach())
        same(z.grad, expected)


class Small(nn.Module):
    "Convolution, batch norm, a recurrent layer, a linear one"

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.lstm, self.fc = (
            nn.Conv2d(3, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.LSTM(16, 5, batch_first=True),
            nn.Linear(5, 2),
        )

    def forward(self, x):  # [B,3,6,6] -> [B,2]
        x = self.norm(self.conv(x)).relu().flatten(2)  # [B,3,6,6] -> [B,4,4,4] -> [B,4,16]
        return self.fc(self.lstm(x)[0][:, -1])


def three_steps(net, x):
    opt = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(3):
        opt.zero_grad()
        nn.functional.cross_entropy(net(x), x.new_tensor([0, 1, 1]).long()).backward()
        opt.step()
    return net


def test_a_training_is_that_of_the_cpu():
    torch.manual_seed(0)
    net, x = Small(), torch.randn(3, 3, 6, 6)
    on_cpu = three_steps(copy.deepcopy(net), x).state_dict()
    with Rehearsal() as card:
        on_gpu = three_steps(net.to("cuda"), x.cuda()).state_dict()
        assert all(isinstance(p, nn.Parameter) for p in net.parameters())
        for name, value in on_gpu.items():
            same(value, on_cpu[name], rtol=1e-4, atol=1e-5)
    names = {o.name.partition(".")[0] for o in card.launches}
    assert {"cudnn_batch_norm", "cudnn_batch_norm_backward", "convolution_backward"} < names
    assert any(name.startswith("_foreach") for name in names)  # Adam's fast form


@torch.inference_mode()
def infer(net, x):
    assert not torch.is_grad_enabled()
    with torch.inference_mode(False):
        assert torch.is_grad_enabled()
    return net(x)


def test_in_evaluation():
    torch.manual_seed(0)
    net, x = Small().eval(), torch.randn(3, 3, 6, 6)
    expected = net(x).detach()
    with Rehearsal():
        same(infer(copy.deepcopy(net.cuda()), x.cuda()), expected, rtol=1e-4, atol=1e-5)
        assert torch.is_grad_enabled()


def test_autocast_follows_the_rules_of_cuda(card):
    net, x = nn.Linear(2, 2).cuda(), gpu(1, 2)
    with torch.autocast("cuda", torch.bfloat16):
        y = net(x)
        assert y.dtype == torch.bfloat16 and y.exp().dtype == torch.float32  # the CPU's autocast leaves exp as it is


def test_errors_of_autograd(card):
    x, y = gpu(2).requires_grad_(), gpu(2).requires_grad_()
    with pytest.raises(RuntimeError, match="scalar outputs"):
        (2 * x).backward()
    with pytest.raises(RuntimeError, match="does not require grad"):
        gpu().backward()
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(x.sum(), [x, y])
    assert torch.autograd.grad(x.sum(), [x, y], allow_unused=True)[1] is None
    same(torch.autograd.grad(x.sum(), [x, y], materialize_grads=True)[1], torch.zeros(2))


def test_files(card, tmp_path):
    net = Small().cuda()
    torch.save(net.state_dict(), tmp_path / "w.pt")
    for device in ("cpu", "cuda"):
        state = torch.load(tmp_path / "w.pt", map_location=device)
        assert {v.device.type for v in state.values()} == {device}
        net.load_state_dict(state)


# ---------------------------------------------------------------- shapes alone


def masked_step(net, x, labels):
    "A step with a mask of known values, one that only the numbers know, and a wait"
    out = net(x.to("cuda"))
    fake = labels.to("cuda") == 1
    loss = out[fake].square().mean() + out[~fake].exp().mean()
    loss.backward()
    return loss.item(), out[out > -9e9]


def test_shapes_alone_count_the_same():
    torch.manual_seed(0)
    x, labels, found = torch.randn(3, 3, 6, 6), torch.tensor([0, 1, 1]), []
    for shapes_only in (False, True):
        with Rehearsal(shapes_only) as card:
            net = Small().to("cuda")
            card.clear()
            masked_step(net, x, labels)
            found.append((card.totals(), card.waits, [(o.name, o.bytes, o.flops) for o in card.launches]))
    (numbers, waits, launches), (shapes, waits_, launches_) = found
    assert waits == waits_ and launches == launches_ and numbers == shapes


# ---------------------------------------------------------------- before and after


def replaceable():
    "Some of what is another while a rehearsal lasts"
    own = torch.autograd.backward, torch.autograd.grad, torch.save, torch.Tensor.cuda, torch.inference_mode.__enter__
    return torch.cuda.is_available(), *own


def test_nothing_is_left_behind():
    before = replaceable()
    with pytest.raises(ZeroDivisionError):
        with Rehearsal():
            assert torch.cuda.is_available() and torch.cuda.get_device_name() == "a pretended GPU"
            kept = gpu(2)
            _ = 1 / 0
    assert before == replaceable()
    with pytest.raises(RuntimeError, match="after its end"):
        kept + 1
    x = cpu(2).requires_grad_()
    x.sum().backward()
    assert x.grad is not None
