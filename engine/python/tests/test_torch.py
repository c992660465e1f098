"""From a PyTorch network to encrypted labels."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import cryptodl  # noqa: E402
from cryptodl import torch as poly  # noqa: E402


def network(activation=nn.ReLU):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, stride=2), nn.BatchNorm2d(6), activation(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(216, 10))


def test_polynomials_start_as_the_best_of_relu():
    x = torch.randn(200_000)
    activation = poly.PolyActivation().eval()
    best = np.polyfit(x.numpy(), torch.relu(x).numpy(), 2)[::-1]
    assert np.allclose(activation.coefficients.detach().numpy(), best, atol=0.01)
    y = activation(torch.tensor([[-1.0, 0.0, 2.0]]))
    assert torch.allclose(y, torch.tensor([[c[0] - c[1] + c[2], c[0], c[0] + 2 * c[1] + 4 * c[2]]
                                           for c in [poly.RELU]]), atol=1e-6)


def test_coefficients_of_every_kind():
    own = poly.PolyActivation(3, (0.0, 0.5, 0.2, 0.1), leading_factor=2.0)
    with torch.no_grad():
        own.rows[1, 3], own.rows[2, 3] = 50.0, -50.0
    assert torch.allclose(own.coefficients[:, 3], torch.tensor([0.1, 0.2, 0.05]))
    z = torch.randn(4, 3, 5, 5)
    expected = sum(own.coefficients[:, k].view(-1, 1, 1) * z**k for k in range(4))
    assert torch.allclose(own(z), expected, atol=1e-5)
    clamped = poly.PolyActivation(clamp=1.0)
    assert torch.equal(clamped(torch.tensor([[9.0]])), clamped(torch.tensor([[1.0]])))
    lopsided = poly.PolyActivation(clamp=(-0.5, 2.0))
    assert torch.equal(lopsided(torch.tensor([[9.0, -9.0]])), lopsided(torch.tensor([[2.0, -0.5]])))
    clamped.eval()
    assert not torch.equal(clamped(torch.tensor([[9.0]])), clamped(torch.tensor([[1.0]])))
    for bad in ({"coefficients": (1.0, 2.0)}, {"normalised": True}, {"normalised": True, "channels": 2,
                                                                       "coefficients": (0.0, 1.0, 1.0, 1.0)}):
        with pytest.raises(ValueError):
            poly.PolyActivation(**bad)


@pytest.mark.parametrize("options", [{}, {"channels": 3, "leading_factor": 2.0}, {"channels": 3, "normalised": True}])
def test_channels_may_come_last(options):
    torch.manual_seed(4)
    z = 9 * torch.randn(8, 3, 5, 7)
    first, last = (poly.PolyActivation(clamp=(-2.0, 5.0), **options) for _ in range(2))
    rows = first.rows.detach() + torch.randn(first.rows.shape)
    for activation in (first, last):
        with torch.no_grad():
            activation.rows.copy_(rows)
    for training in (True, False):
        first.train(training), last.train(training)
        moved = last(z.movedim(1, -1), channels_last=True).movedim(-1, 1)
        assert torch.allclose(moved, first(z), rtol=1e-5, atol=1e-4), training
    # Without channels in the middle, as dense layers have them, there is nothing to move.
    assert torch.equal(first(z[:, :, 0, 0]), first(z[:, :, 0, 0], channels_last=True))


def test_clamped_values_have_no_gradient_and_others_have():
    activation = poly.PolyActivation(2, clamp=1.0, leading_factor=4.0)
    z = torch.tensor([[0.5, 3.0]], requires_grad=True)
    activation(z).sum().backward()
    assert z.grad[0, 0] != 0 and z.grad[0, 1] == 0
    # Both rows learn; that of the clamped value as at the end of the interval.
    assert (activation.rows.grad.abs().sum(1) > 0).all()
    assert torch.equal(activation.rows.grad[1, :2], torch.tensor([1.0, 1.0]))
    assert torch.equal(activation.coefficients[:, 2], torch.full((2,), poly.RELU[2]))


def test_normalised_functions_fold_into_one_quadratic():
    torch.manual_seed(2)
    activation = poly.PolyActivation(4, normalised=True)
    z = torch.randn(64, 4, 6, 6) * torch.tensor([0.1, 1.0, 3.0, 9.0]).view(1, 4, 1, 1) + 2.0
    for _ in range(200):
        trained = activation(z)
    activation.eval()
    assert torch.allclose(activation(z), trained, atol=2e-2)
    c = activation.coefficients
    quadratic = sum(c[:, k].view(-1, 1, 1) * z**k for k in range(3))
    assert torch.allclose(activation(z), quadratic, atol=1e-3)


def test_layers_are_replaced_where_they_are():
    net = nn.Sequential(network(), nn.Sequential(nn.GELU(), network(nn.SiLU)))
    assert poly.replace_max_pool(poly.replace_relu(net)) is net
    kinds = [type(m) for m in net.modules()]
    assert kinds.count(poly.PolyActivation) == 3 and kinds.count(nn.AvgPool2d) == 2
    assert not {nn.ReLU, nn.GELU, nn.SiLU, nn.MaxPool2d} & set(kinds)
    made = poly.replace_relu(network(), lambda: poly.PolyActivation(6, clamp=4.0))
    assert made[2].rows.shape == (6, 3)


def test_losses_and_noise():
    z = torch.tensor([[5.0, -1.0], [0.0, -7.0]])
    assert float(poly.range_loss([z], 4.0)) == pytest.approx((1 + 9) / 2)
    net = network()
    before = [p.clone() for p in net.parameters()]
    with poly.weight_noise(net, 5):
        step = before[0].abs().max() / 15
        assert torch.equal(poly.rounding_step(before[0], 5), step)
        change = (net[0].weight - before[0]).abs().max()
        assert 0 < change <= step / 2
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters()))


def test_rounded_weights_are_integers_with_the_gradient_of_others():
    torch.manual_seed(5)
    weight = torch.randn(4, 3, requires_grad=True)
    step = poly.rounding_step(weight, 4)
    rounded = weight + poly.rounding_error(weight, 4)
    integers = (rounded / step).detach()
    assert torch.allclose(integers, integers.round(), atol=1e-5) and integers.abs().max().round() == 7
    assert (rounded - weight).abs().max() <= step / 2 * (1 + 1e-5)
    (rounded * torch.arange(12.0).view(4, 3)).sum().backward()
    assert torch.equal(weight.grad, torch.arange(12.0).view(4, 3))
    noise = poly.rounding_noise(weight.expand(1000, 4, 3), 4)
    assert noise.abs().max() <= step / 2 and not noise.requires_grad
    # Uniform: a twelfth of the step's square.
    assert float(noise.var() / step**2) == pytest.approx(1 / 12, rel=0.05)


def test_inputs_of_activations_are_those_of_the_last_pass():
    shared = poly.PolyActivation()
    net = nn.Sequential(nn.Flatten(), shared, nn.Linear(4, 4), shared)
    with poly.activation_inputs(net) as inputs:
        for x in (torch.ones(2, 4), torch.zeros(3, 4)):
            net(x)
            # One activation stands at two places.
            assert [z.shape for z in inputs] == [x.shape, x.shape] and torch.equal(inputs[0], x)
    net(torch.ones(5, 4))
    assert len(inputs[0]) == 3


def test_a_network_is_tuned_compiled_and_run(digits):
    """Half of the test images train and calibrate, the other half is classified."""
    images, labels = digits
    train = torch.from_numpy(images[:5000]), torch.from_numpy(labels[:5000].astype(np.int64))
    net = poly.replace_max_pool(poly.replace_relu(network()))
    poly.fine_tune(net, train, epochs=6, batch=64, learning_rate=1e-2, seed=3, log=lambda line: None)
    model = cryptodl.compile(net, calibration=images[:2000], class_names=[f"digit {i}" for i in range(10)])
    test = images[5000:5400]
    with torch.no_grad():
        scores = net(torch.from_numpy(test)).numpy()
    clear = model.predict(test, fhe="disable")
    assert (clear == scores.argmax(1)).all()
    assert (clear == labels[5000:5400]).mean() >= 0.9
    assert (model.predict(test) == clear).mean() >= 0.99
    assert model.class_names[3] == "digit 3"


def test_what_stays_is_refused_by_name(digits):
    with pytest.raises(cryptodl.ModelError, match="(?i)relu"):
        cryptodl.compile(network(), calibration=digits[0][:1000])
