"""The discriminator's work in a training step, each code passed forward and backward once.

Written plainly, a step runs the discriminator three times over codes: once on z for the VAE's TC
term, and once each on z and on the permuted codes for its own loss. The first two see the same
codes and the same weights, and more than their forward pass is shared. Per code, the TC term's
gradient at the logits is (1, -1); the cross-entropy's is -p_permuted * (1, -1) on a joint code and
p_joint * (1, -1) on a permuted one. Backpropagation is linear in what it starts from, so one
backward pass of the direction (1, -1) gives the TC gradient, and, its rows scaled by those
probabilities, every weight gradient of the discriminator's loss.
"""

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from factorvae.models import LEAKY_SLOPE, Discriminator
from factorvae.objective import discriminator_accuracy, discriminator_loss, total_correlation


class Critic:
    """Total correlation for the VAE, then the discriminator's gradients, from one pass each.

    Call `total_correlation(z)`, then `backward(z_perm)`, in every step: the second uses what the
    first kept. Buffers are static and nothing waits for the device.

    Args:
        discriminator: its parameters get `.grad`s, float32.
        batch_size: B, the rows of z.
        dtype: in which the layers compute.
    """

    def __init__(self, discriminator: Discriminator, batch_size: int, dtype: torch.dtype) -> None:
        B = self.batch_size = batch_size
        self.dtype = dtype
        self.layers = [*discriminator.hidden, discriminator.out]
        self.parameters = [parameter.detach() for parameter in discriminator.parameters()]
        for parameter in discriminator.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.copies = self.parameters  # in `dtype`: weight, bias, weight, bias, ...
        if dtype != torch.float32:
            self.copies = [parameter.to(dtype) for parameter in self.parameters]
        self.weights, self.biases = self.copies[0::2], self.copies[1::2]

        def rows(width: int) -> Tensor:
            return torch.zeros(2 * B, width, dtype=dtype, device=self.parameters[0].device)

        # of every layer; codes from q(z) in the upper B rows, permuted codes in the lower
        self.inputs = [rows(layer.in_features) for layer in self.layers]
        self.deltas = [rows(layer.out_features) for layer in self.layers]
        self.deltas[-1].copy_(torch.tensor([1.0, -1.0]))  # d (logit_joint - logit_perm) / d logits
        self.joint = [[whole[:B] for whole in both] for both in (self.inputs, self.deltas)]
        self.perm = [[whole[B:] for whole in both] for both in (self.inputs, self.deltas)]

    def compile(self) -> None:
        """Have torch.compile fuse what lies between the matrix products."""
        self._joint = torch.compile(self._joint)
        self.backward = torch.compile(self.backward)

    def total_correlation(self, z: Tensor) -> Tensor:
        """Eq. 3 on z [B, latent_dim], differentiable in z and in nothing else."""
        return _TotalCorrelation.apply(z, self)

    @torch.no_grad()
    def backward(self, z_perm: Tensor) -> tuple[Tensor, Tensor]:
        """Set the gradients of Algorithm 2's discriminator loss; return that loss and the accuracy.

        Args:
            z_perm: permuted codes [B, latent_dim] of a second batch.
        """
        B = self.batch_size
        joint, perm = self.logits_joint, self._pass(*self.perm, z_perm)
        scale = torch.cat([-joint.softmax(dim=1)[:, 1], perm.softmax(dim=1)[:, 0]]) / (2 * B)
        scale = scale.to(self.dtype)[:, None]  # [2B, 1]
        for layer, inputs, deltas in zip(self.layers, self.inputs, self.deltas, strict=True):
            scaled = deltas * scale  # [2B, out]
            if self.dtype == torch.float32:
                torch.mm(scaled.t(), inputs, out=layer.weight.grad)
            else:
                layer.weight.grad.copy_(scaled.t() @ inputs)
            torch.sum(scaled, dim=0, dtype=torch.float32, out=layer.bias.grad)
        return discriminator_loss(joint, perm), discriminator_accuracy(joint, perm)

    def _pass(self, inputs: list[Tensor], deltas: list[Tensor], z: Tensor) -> Tensor:
        """Forward z through the layers, then (1, -1) back down; returns the logits [B, 2]."""
        last = len(self.layers) - 1
        inputs[0].copy_(z)
        for k in range(last):
            weight_t = self.weights[k].t()
            hidden = torch.addmm(self.biases[k], inputs[k], weight_t, out=inputs[k + 1])
            F.leaky_relu_(hidden, LEAKY_SLOPE)
        logits = torch.addmm(self.biases[last], inputs[last], self.weights[last].t())
        for k in range(last, 0, -1):
            delta = torch.mm(deltas[k], self.weights[k], out=deltas[k - 1])
            # the sign of a leaky unit's output is that of its input
            torch.ops.aten.leaky_relu_backward(
                delta, inputs[k], LEAKY_SLOPE, True, grad_input=delta
            )
        return logits.float()

    def _joint(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The estimate on z and its gradient, [] and [B, latent_dim], both float32."""
        if self.dtype != torch.float32:
            torch._foreach_copy_(self.copies, self.parameters)
        self.logits_joint = self._pass(*self.joint, z)
        grad_z = (self.joint[1][0] @ self.weights[0]).float() / self.batch_size
        return total_correlation(self.logits_joint), grad_z


class _TotalCorrelation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor, critic: Critic) -> Tensor:  # noqa: ANN001
        tc, grad_z = critic._joint(z)
        ctx.save_for_backward(grad_z)
        return tc

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN001
        (grad_z,) = ctx.saved_tensors
        return grad * grad_z, None


class DistributedCritic:
    """What `Critic` does, by autograd and for one part of a batch in each of several processes.

    The two estimates are written plainly, and DistributedDataParallel averages the gradients of the
    discriminator over the processes.

    Args:
        discriminator: its parameters get `.grad`s, float32.
        dtype: in which the layers compute.
        group: of the processes.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        dtype: torch.dtype,
        group: torch.distributed.ProcessGroup | None,
    ) -> None:
        self.dtype = dtype
        self.discriminator = discriminator
        self.parallel = DistributedDataParallel(discriminator, process_group=group)

    def total_correlation(self, z: Tensor) -> Tensor:
        """Eq. 3 on z [b, latent_dim], differentiable in z and in nothing else."""
        self.z = z.detach()
        constant = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        return total_correlation(functional_call(self.discriminator, constant, z.to(self.dtype)))

    def backward(self, z_perm: Tensor) -> tuple[Tensor, Tensor]:
        """Set the gradients of Algorithm 2's discriminator loss; return that loss and the accuracy.

        Args:
            z_perm: permuted codes [b, latent_dim] of a second batch.
        """
        both = torch.cat([self.z, z_perm.detach()])  # [2b, latent_dim]
        joint, perm = self.parallel(both.to(self.dtype)).chunk(2)  # [b, 2] each
        loss = discriminator_loss(joint, perm)
        self.parallel.zero_grad()
        loss.backward()
        return loss.detach(), discriminator_accuracy(joint, perm)
