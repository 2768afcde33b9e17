"""The one-pass critic against the objective written plainly."""

import pytest
import torch

from factorvae.models import Discriminator
from factorvae.objective import discriminator_accuracy, discriminator_loss, total_correlation
from factorvae.training.discriminator_pass import Critic


@pytest.fixture
def setting():
    generator = torch.Generator().manual_seed(0)
    discriminator = Discriminator(4, depth=3, width=32, generator=generator)
    for layer in [*discriminator.hidden, discriminator.out]:
        torch.nn.init.normal_(layer.bias, generator=generator)
    z = torch.randn(16, 4, generator=generator)
    z_perm = torch.randn(16, 4, generator=generator)
    return discriminator, z, z_perm


def plain(discriminator, z, z_perm):
    """TC, its gradient in z, the discriminator's loss and its gradients, by autograd."""
    z = z.clone().requires_grad_()
    tc = total_correlation(discriminator(z))
    (grad_z,) = torch.autograd.grad(tc, z)
    loss = discriminator_loss(discriminator(z.detach()), discriminator(z_perm))
    grads = torch.autograd.grad(loss, list(discriminator.parameters()))
    return tc, grad_z, loss, grads


def test_the_critic_is_exact_in_every_step(setting):
    discriminator, z, z_perm = setting
    critic = Critic(discriminator, len(z), torch.float32)
    optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.1)
    for step in range(3):  # weights change in between: nothing stale is used
        expected_tc, expected_grad, expected_loss, expected_grads = plain(
            discriminator, z + step, z_perm
        )
        leaf = (z + step).requires_grad_()
        tc = critic.total_correlation(leaf)
        (3 * tc).backward()
        loss, accuracy = critic.backward(z_perm)
        torch.testing.assert_close(tc, expected_tc)
        torch.testing.assert_close(leaf.grad, 3 * expected_grad)
        torch.testing.assert_close(loss, expected_loss)
        for parameter, expected in zip(discriminator.parameters(), expected_grads, strict=True):
            torch.testing.assert_close(parameter.grad, expected, atol=1e-6, rtol=1e-4)
        expected_accuracy = discriminator_accuracy(discriminator(leaf), discriminator(z_perm))
        assert accuracy == expected_accuracy
        optimizer.step()


def test_bfloat16_agrees_roughly(setting):
    discriminator, z, z_perm = setting
    critic = Critic(discriminator, len(z), torch.bfloat16)
    expected_tc, _, expected_loss, expected_grads = plain(discriminator, z, z_perm)
    torch.testing.assert_close(critic.total_correlation(z), expected_tc, atol=0.05, rtol=0.05)
    torch.testing.assert_close(critic.backward(z_perm)[0], expected_loss, atol=0.02, rtol=0.05)
    for parameter, expected in zip(discriminator.parameters(), expected_grads, strict=True):
        assert parameter.grad.dtype == torch.float32
        error = (parameter.grad - expected).norm() / expected.norm()
        assert error < 0.05


def test_no_gradient_crosses_between_the_two_losses(setting):
    discriminator, z, z_perm = setting
    critic = Critic(discriminator, len(z), torch.float32)
    leaf, leaf_perm = z.clone().requires_grad_(), z_perm.clone().requires_grad_()
    critic.total_correlation(leaf).backward()
    # the VAE's loss leaves the discriminator's gradients as they were ...
    assert all(not parameter.grad.any() for parameter in discriminator.parameters())
    before = leaf.grad.clone()
    loss, accuracy = critic.backward(leaf_perm)
    # ... and the discriminator's reaches neither batch of codes
    assert torch.equal(leaf.grad, before)
    assert leaf_perm.grad is None
    assert not loss.requires_grad
    assert not accuracy.requires_grad
    assert all(parameter.grad.any() for parameter in discriminator.parameters())
