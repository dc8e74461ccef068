import copy
from importlib import import_module

import pytest
import torch
from torch import nn

from hdgan import ops
from hdgan.nn import InstanceNormAct2d, InstanceNormAct3d
from hdgan.ops import _backend
from tests.ops.checks import DTYPES, FORMATS, assert_near

FORMATS_3D = [torch.contiguous_format, torch.channels_last_3d]
PADS = {"reflect": nn.ReflectionPad2d, "zero": nn.ZeroPad2d, "replicate": nn.ReplicationPad2d}
CASES = {
    "alone": {},
    "scale and shift": {"affine": True, "eps": 0.1},
    "no shift": {"affine": True, "bias": False, "activation": "relu", "pad": 1},
    "stem": {"affine": True, "activation": "relu", "pad": 3},
    "discriminator": {"activation": "leaky_relu", "negative_slope": 0.2},
    "zeros": {"affine": True, "activation": "leaky_relu", "pad": 2, "pad_mode": "zero"},
    "edges": {"activation": "relu", "pad": 1, "pad_mode": "replicate"},
}
CASES_3D = {name: options for name, options in CASES.items() if "pad" not in options}


class Composed(nn.Module):
    """What a module stands for, made of modules of torch.nn."""

    def __init__(self, norm, activation="none", negative_slope=0.01, pad=0, pad_mode="reflect"):
        super().__init__()
        self.norm = norm
        acts = {"none": nn.Identity(), "relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(negative_slope)}
        self.act, self.pad = acts[activation], PADS[pad_mode](pad)

    def forward(self, x, residual=None):
        y = self.act(self.norm(x))
        y = y if residual is None else y + residual
        return self.pad(y) if x.dim() == 4 and self.pad.padding != (0, 0, 0, 0) else y


def composed(kind, module, **options):
    """The same, with equal parameters in float64."""
    affine = module.affine
    norm = kind(module.num_features, module.eps, affine=affine, dtype=torch.float64)
    if affine and module.bias is None:
        norm.bias = None
    norm.load_state_dict(module.state_dict())
    return Composed(norm, **{k: v for k, v in options.items() if k not in ("affine", "bias", "eps")})


def randomised(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(0.5, 1.5)
    return module


def result_and_gradients(module, inputs):
    inputs = [x.detach().requires_grad_() for x in inputs]
    y = module(*inputs)
    upstream = torch.linspace(-1, 1, y.numel()).view(y.shape)
    return [y, *torch.autograd.grad(y, [*inputs, *module.parameters()], upstream.to(y))]


def check_near_composition(kind, make, options, backend, device, inputs):
    """Compare results and gradients in each dtype, and yield the result and the gradient of x, and the others."""
    for dtype in DTYPES if backend != "eager" else [torch.float32, torch.float64]:
        given = [x.to(dtype) for x in inputs]
        # Parameters stay in float32, as under autocast.
        module = randomised(make(3, **options, dtype=torch.promote_types(dtype, torch.float32)))
        expected = result_and_gradients(composed(kind, module, **options), [x.double() for x in given])
        with ops.backend(backend):
            found = result_and_gradients(module.to(device), [x.to(device) for x in given])
        assert found[0].dtype == dtype
        for ours, theirs, of in zip(found, expected, ["y", *inputs, *module.parameters()], strict=True):
            scale = inputs[0].numel() ** 0.5 if isinstance(of, nn.Parameter) else 1.0  # sums over all pixels
            assert_near(ours / scale, theirs / scale, dtype)
        yield found


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_near_the_modules_of_torch(backend, device, name, residual, memory_format):
    inputs = [torch.randn(2, 3, 5, 6).contiguous(memory_format=memory_format) for _ in range(1 + residual)]
    for found in check_near_composition(nn.InstanceNorm2d, InstanceNormAct2d, CASES[name], backend, device, inputs):
        kept = found[:1] if backend == "eager" else found[:2]  # PyTorch chooses the format of its own gradients
        assert all(tensor.is_contiguous(memory_format=memory_format) for tensor in kept)


@pytest.mark.parametrize("memory_format", FORMATS_3D)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", CASES_3D)
def test_volumes_near_the_modules_of_torch(backend, device, name, residual, memory_format):
    inputs = [torch.randn(2, 3, 3, 5, 4).contiguous(memory_format=memory_format) for _ in range(1 + residual)]
    for found in check_near_composition(nn.InstanceNorm3d, InstanceNormAct3d, CASES_3D[name], backend, device, inputs):
        kept = found[:1] if backend == "eager" else found[:2]  # PyTorch chooses the format of its own gradients
        assert all(tensor.is_contiguous(memory_format=memory_format) for tensor in kept)


@pytest.mark.parametrize("memory_format", FORMATS_3D)
def test_volumes_are_read_where_they_lie(memory_format, monkeypatch):
    """The kernels get the memory of the volumes, and write that of the results: nothing is copied."""
    calls = {}

    def spy(stem, kernel, backend, device, *arguments):
        calls[kernel] = [a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments]
        _backend.launch(stem, kernel, backend, device, *arguments)

    monkeypatch.setattr(import_module("hdgan.ops.instance_norm_act"), "launch", spy)  # the op has the same name
    x, residual, dy = (torch.randn(2, 3, 4, 5, 6).contiguous(memory_format=memory_format) for _ in range(3))
    x.requires_grad_()
    y = InstanceNormAct3d(3, activation="leaky_relu")(x, residual)
    (dx,) = torch.autograd.grad(y, x, dy)
    assert [calls["fwd"][k] for k in (0, 3, 4)] == [t.data_ptr() for t in (x, residual, y)]
    assert [calls["bwd"][k] for k in (0, 1, 6)] == [t.data_ptr() for t in (dy, x, dx)]


def test_volumes_with_gaps(backend, device):
    volume = torch.randn(2, 3, 6, 8, 5).to(device)[:, :, :, ::2]
    module = InstanceNormAct3d(3, activation="relu")
    with ops.backend(backend):
        torch.testing.assert_close(module(volume), module(volume.contiguous()))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("module", "shape"), [(InstanceNormAct2d(3, pad=1), (2, 3, 5, 6)), (InstanceNormAct3d(3), (2, 3, 4, 5, 6))]
)
def test_without_a_batch(module, shape, memory_format):
    if len(shape) == 5 and memory_format == torch.channels_last:
        memory_format = torch.channels_last_3d
    x, residual = (torch.randn(shape).contiguous(memory_format=memory_format) for _ in range(2))
    for k in range(2):
        assert torch.equal(module(x[k], residual[k]), module(x, residual)[k])
        assert module(x[k]).stride() == module(x)[k].stride()


@pytest.mark.parametrize("make", [InstanceNormAct2d, InstanceNormAct3d])
def test_planes_of_one_pixel_are_refused_as_by_torch(make):
    """In training and in evaluation. Lines of pixels are planes."""
    theirs = {InstanceNormAct2d: nn.InstanceNorm2d, InstanceNormAct3d: nn.InstanceNorm3d}[make](3)
    x = torch.randn(2, 3, *(1,) * (make.RANK - 3), 7)
    torch.testing.assert_close(make(3)(x), theirs(x))
    for ours, message in ((make(3), "expected planes of more than one pixel, got x of shape"), (theirs, "more than 1")):
        for mode in (True, False):
            with pytest.raises(ValueError, match=message):
                ours.train(mode)(x[..., :1])


def test_second_derivatives_in_3d():
    x = torch.randn(1, 2, 2, 3, 4, requires_grad=True)
    wide = x.detach().double().requires_grad_()
    module = randomised(InstanceNormAct3d(2, affine=True, activation="leaky_relu", eps=0.1))
    (found,) = torch.autograd.grad(module(x).pow(3).sum(), x, create_graph=True)
    reference = composed(nn.InstanceNorm3d, module, activation="leaky_relu")
    (expected,) = torch.autograd.grad(reference(wide).pow(3).sum(), wide, create_graph=True)
    for ours, theirs in zip(
        torch.autograd.grad(found.square().sum(), [x, *module.parameters()]),
        torch.autograd.grad(expected.square().sum(), [wide, *reference.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16])
def test_autocast_gives_the_dtype_that_torch_gives(dtype, cast, affine):
    """PyTorch has no rule for instance norm, on any device, so the dtype is that of x."""
    for key in ("AutocastCPU", "AutocastCUDA"):
        assert not torch._C._dispatch_has_kernel_for_dispatch_key("aten::instance_norm", key)
    for ours, theirs, shape in (
        (InstanceNormAct2d, nn.InstanceNorm2d, (1, 3, 5, 6)),
        (InstanceNormAct3d, nn.InstanceNorm3d, (1, 3, 4, 5, 6)),
    ):
        x = torch.randn(shape).to(dtype)
        with torch.autocast("cpu", cast):
            found, expected = ours(3, affine=affine)(x), theirs(3, affine=affine)(x)
        assert found.dtype == expected.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_a_step_under_autocast():
    """Convolutions and norms in bfloat16, parameters and their gradients in float32."""
    ours = nn.Sequential(nn.Conv2d(2, 4, 3), InstanceNormAct2d(4, affine=True, activation="relu", pad=1))
    theirs = nn.Sequential(copy.deepcopy(ours[0]), nn.InstanceNorm2d(4, affine=True), nn.ReLU(), nn.ReflectionPad2d(1))
    x = torch.randn(2, 2, 9, 9)
    gradients = []
    for network in (ours, theirs):
        with torch.autocast("cpu", torch.bfloat16):
            y = network(x)
        # On a CPU, PyTorch reflects and replicates in float32; the next convolution rounds again, to the same numbers.
        assert y.dtype == (torch.bfloat16 if network is ours else torch.float32)
        y.float().square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for found, expected in zip(*gradients, strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.02 * gradients[1][0].norm()


@pytest.mark.parametrize(
    ("ours", "theirs"), [(InstanceNormAct2d, nn.InstanceNorm2d), (InstanceNormAct3d, nn.InstanceNorm3d)]
)
@pytest.mark.parametrize("affine", [False, True])
def test_state_dicts_of_the_norm(ours, theirs, affine):
    made, norm = ours(5, affine=affine), theirs(5, affine=affine)
    assert list(made.state_dict()) == list(norm.state_dict()) == (["weight", "bias"] if affine else [])
    for name, value in norm.state_dict().items():
        assert torch.equal(made.state_dict()[name], value)
    randomised(made)
    assert norm.load_state_dict(made.state_dict(), strict=True)
    fresh = ours(5, affine=affine)
    fresh.load_state_dict(norm.state_dict(), strict=True)
    for name, value in made.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value)


@pytest.mark.parametrize("make", [InstanceNormAct2d, InstanceNormAct3d])
def test_devices_dtypes_and_defaults(make):
    made = make(4, affine=True, device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype, p.shape) for p in made.parameters()} == {("meta", torch.float64, (4,))}
    assert make(4, affine=True).to(torch.bfloat16).weight.dtype == torch.bfloat16
    assert make(4).eps == nn.InstanceNorm2d(4).eps
    assert make(4).negative_slope == nn.LeakyReLU().negative_slope
    made = randomised(make(4, affine=True))
    made.reset_parameters()
    assert made.weight.tolist() == [1] * 4
    assert made.bias.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("module", "shown"),
    [
        (InstanceNormAct2d(3, pad_mode="zero"), "InstanceNormAct2d(3, eps=1e-05, affine=False)"),
        (
            InstanceNormAct2d(3, affine=True, bias=False, activation="leaky_relu", pad=2),
            "InstanceNormAct2d(3, eps=1e-05, affine=True, bias=False, activation=leaky_relu, negative_slope=0.01, "
            "pad=2, pad_mode=reflect)",
        ),
        (InstanceNormAct3d(3, activation="relu"), "InstanceNormAct3d(3, eps=1e-05, affine=False, activation=relu)"),
    ],
)
def test_shows_the_options_that_have_an_effect(module, shown):
    assert repr(module) == shown


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"affine": 0.1}, TypeError, "expected affine True or False, got 0.1; there is no momentum"),
        ({"activation": "gelu"}, ValueError, "expected activation none, relu or leaky_relu, got 'gelu'"),
        ({"negative_slope": -0.1}, ValueError, "expected negative_slope >= 0, got -0.1"),
        ({"negative_slope": float("nan")}, ValueError, "expected negative_slope >= 0, got nan"),
        ({"pad": -1}, ValueError, "expected pad >= 0, got -1"),
        ({"pad_mode": "circular"}, ValueError, "expected pad_mode reflect, zero or replicate, got 'circular'"),
    ],
)
def test_wrong_options(options, error, says):
    with pytest.raises(error, match=f"InstanceNormAct2d: {says}"):
        InstanceNormAct2d(3, **options)
    if not options.keys() & {"pad", "pad_mode"}:
        with pytest.raises(error, match=f"InstanceNormAct3d: {says}"):
            InstanceNormAct3d(3, **options)


@pytest.mark.parametrize(
    ("module", "inputs", "error", "says"),
    [
        (
            InstanceNormAct2d(3),
            (torch.zeros(3, 4),),
            ValueError,
            r"InstanceNormAct2d: expected x of shape \[B, C, H, W\] or \[C, H, W\], got \(3, 4\)",
        ),
        (
            InstanceNormAct3d(3),
            (torch.zeros(3, 4, 5),),
            ValueError,
            r"InstanceNormAct3d: expected x of shape \[B, C, D, H, W\] or \[C, D, H, W\], got \(3, 4, 5\)",
        ),
        (
            InstanceNormAct2d(3, affine=True),
            (torch.zeros(1, 4, 5, 6),),
            ValueError,
            r"x of 3 channels, got .*\(1, 4, 5",
        ),
        (InstanceNormAct3d(3, affine=True), (torch.zeros(1, 4, 5, 6, 7),), ValueError, "expected x of 3 channels"),
        (InstanceNormAct2d(3), (torch.zeros(1, 3, 4, 5).long(),), TypeError, "floating-point dtype, got torch.int64"),
        (InstanceNormAct2d(3, pad=4), (torch.zeros(1, 3, 4, 5),), ValueError, "pad < 4 for reflect padding, got 4"),
        (
            InstanceNormAct2d(3),
            (torch.zeros(1, 3, 4, 5), torch.zeros(1, 3, 4, 6)),
            ValueError,
            r"residual of shape \(1, 3, 4, 5\), or padded equally on all sides, got \(1, 3, 4, 6\)",
        ),
        (
            InstanceNormAct3d(3),
            (torch.zeros(1, 3, 4, 5, 6), torch.zeros(1, 3, 5, 4, 6)),
            ValueError,
            r"residual of shape \(1, 3, 4, 5, 6\), got \(1, 3, 5, 4, 6\)",
        ),
    ],
)
def test_wrong_input(module, inputs, error, says):
    with pytest.raises(error, match=says):
        module(*inputs)


def test_any_number_of_channels_without_scale():
    x = torch.randn(1, 5, 4, 6)
    with pytest.warns(UserWarning, match="does not match num_features"):
        expected = nn.InstanceNorm2d(3)(x)
    torch.testing.assert_close(InstanceNormAct2d(3)(x), expected)
