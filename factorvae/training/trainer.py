"""Training: Algorithm 2 of Kim & Mnih (2018), one step at a time."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam

from factorvae.checkpoint import describe_dataset
from factorvae.config import TrainConfig
from factorvae.datasets import Dataset
from factorvae.errors import UserError
from factorvae.models import VAE, Discriminator
from factorvae.objective import (
    discriminator_accuracy,
    discriminator_loss,
    kl_per_latent,
    permute_dims,
    recon_loss,
    reparameterize,
    total_correlation,
)
from factorvae.penalties import METHODS, Penalty
from factorvae.training.cuda_graphs import GraphedSteps, record_on_cuda
from factorvae.training.distributed import ALONE, World
from factorvae.training.run_folder import DISCRIMINATOR_COLUMNS, PENALTY_COLUMNS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
STEPS_PER_LAUNCH = (10, 1)  # of the CUDA graphs


def derive_seed(seed: int, step: int) -> int:
    """The seed of everything random in one step (steps count from 1; 0 draws the weights)."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Trainer:
    """The networks, their optimisers, and a step.

    On CUDA, steps run on a stream of the trainer's own and the host does not wait for them: call
    `wait` before anything is read. In a world of several processes each makes a part of every
    batch, and DistributedDataParallel averages the gradients.

    Random numbers: on the CPU the generator is seeded anew by (seed, step) in every step; on CUDA,
    where graphs leave the host no say in a step, it is seeded once and goes on, and a checkpoint
    has its state.

    Args:
        config: the run's settings.
        dataset: gives `len` and `batch(index, device)`.
        device: where everything lies.
        world: the processes that share every batch.
        graphs: whether steps on CUDA are replayed from CUDA graphs (in a world of several, never).
        penalty: what gamma weighs, in place of the method's; see `factorvae.penalties`.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        device: torch.device,
        world: World = ALONE,
        graphs: bool = True,
        penalty: Penalty | None = None,
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.device = device
        self.world = world
        self.dtype = DTYPES[config.precision]
        self.steps_done = 0
        on_cuda = device.type == "cuda"
        adam = dict(fused=True, capturable=on_cuda)

        weights = torch.Generator().manual_seed(derive_seed(config.seed, 0))
        self.vae = VAE(dataset.image_shape, config.latent_dim, config.hidden_dim, weights)
        self.vae.to(device)
        self.vae_optimizer = Adam(self.vae.parameters(), config.lr, (0.9, 0.999), **adam)
        self.vae_parameters = list(self.vae.parameters())
        self._vae = world.parallel(self.vae)

        method = METHODS[config.method]
        settings = {**asdict(config), "num_images": len(dataset)}
        self.penalty = penalty or method.bind(settings)
        self.steps_made = torch.zeros((), dtype=torch.int64, device=device)  # in CUDA graphs too

        self.discriminator = self.disc_optimizer = None
        if method.discriminator and self.penalty is None:
            self.discriminator = Discriminator(
                config.latent_dim, config.disc_depth, config.disc_width, weights
            ).to(device)
            self.disc_parameters = list(self.discriminator.parameters())
            self.disc_optimizer = Adam(self.disc_parameters, config.lr_disc, (0.5, 0.9), **adam)
            self._discriminator = world.parallel(self.discriminator)

        if config.compile:
            # Not the discriminator: compiled, it computes all gradients in each backward pass.
            self.vae.compile()
            self.vae.encoder.compile()
            if self.penalty:
                self.penalty = torch.compile(self.penalty)
            torch._functorch.config.donated_buffer = False  # or `retain_graph` is refused

        self.figures = ["recon", "kl"]
        if self.discriminator:
            self.figures += DISCRIMINATOR_COLUMNS
        if self.penalty:
            self.figures += PENALTY_COLUMNS
        self.figures += [f"kl_{j}" for j in range(config.latent_dim)]
        # since the last row of the log: the steps, the sum of each figure, its steps while finite
        self.steps_in_row = 0
        self.sums = torch.zeros(len(self.figures), dtype=torch.float64, device=device)
        self.finite_steps = torch.zeros(len(self.figures), dtype=torch.int64, device=device)

        self.generator = torch.Generator(device).manual_seed(self._next_seed())
        self.batches = 2 if self.discriminator else 1  # a step's
        self.shard = world.shard(config.batch_size)
        # A table that is not on the device is read by the host, which puts a step's images here.
        self.images = None
        if dataset.index_device(device) != device:
            size = self.batches * config.batch_size // world.size
            self.images = torch.zeros(size, *dataset.image_shape, device=device)
        self.stream = torch.cuda.Stream(device) if on_cuda and world.alone else None
        self.graphed = None
        if self.stream is not None and graphs:
            sizes = STEPS_PER_LAUNCH if self.images is None else (1,)
            self.graphed = GraphedSteps(self._whole_step, self.generator, sizes, record_on_cuda)

    def step(self, x1: Tensor, x2: Tensor | None) -> Tensor:
        """One step of Algorithm 2 on two independent batches of images.

        A method without a discriminator makes the first half alone.

        The discriminator's logits on z serve both losses, by one graph: `inputs` says which
        network's gradients each backward pass is for.

        Args:
            x1, x2: [B, C, H, W] in [0, 1], or this process's part of them; without a
                discriminator, there is no second batch.

        Returns:
            The figures named in `self.figures`, before the step: float32 [len(figures)].
        """
        config, dtype = self.config, self.dtype
        logits, mu, logvar, z = self._vae(x1.to(dtype), self._noise())
        recon = recon_loss(logits, x1)
        kl_latents = kl_per_latent(mu, logvar)  # [latent_dim]
        kl = kl_latents.sum()
        penalty = torch.zeros_like(kl)
        if self.discriminator:
            d_joint = self._discriminator(z.to(dtype))  # [B, 2]
            penalty = total_correlation(d_joint)
        elif self.penalty:  # of the whole batch: in a world of several, of all processes' codes
            codes = self.world.all_gather_codes(mu, logvar, z)
            penalty = self.penalty(*codes, self.steps_made)
        loss = recon + config.beta * kl + config.gamma * penalty  # Eq. 2
        self.vae_optimizer.zero_grad()
        loss.backward(inputs=self.vae_parameters, retain_graph=bool(self.discriminator))
        self.vae_optimizer.step()
        figures = [recon, kl]
        if self.penalty:
            figures += [penalty]

        if self.discriminator:
            with torch.no_grad():
                mu2, logvar2 = self.vae.encode(x2.to(dtype))  # by the encoder just updated
                z2 = reparameterize(mu2, logvar2, self._noise())
                # over the whole batch: in a world of several, codes of all processes change places
                z_perm = permute_dims(self.world.all_gather_rows(z2), self.generator)[self.shard]
            d_perm = self._discriminator(z_perm.to(dtype))  # [B, 2]
            disc_loss = discriminator_loss(d_joint, d_perm)
            self.disc_optimizer.zero_grad()
            disc_loss.backward(inputs=self.disc_parameters)
            self.disc_optimizer.step()
            figures += [penalty, disc_loss, discriminator_accuracy(d_joint, d_perm)]
        return torch.cat([torch.stack(figures), kl_latents]).detach()

    def _noise(self) -> Tensor:
        """N(0, I) for this process's part of a batch, of which every process draws the whole."""
        shape = (self.config.batch_size, self.config.latent_dim)
        return torch.randn(shape, generator=self.generator, device=self.device)[self.shard]

    def advance(self, steps: int = 1) -> None:
        """Make so many steps on batches drawn at random, and add up their figures."""
        until = self.steps_done + steps
        with self._on_own_stream():
            while self.steps_done < until:
                if self.device.type == "cpu":
                    self.generator.manual_seed(self._next_seed())
                if self.images is not None:
                    self._read_images()
                if self.graphed:
                    made = self.graphed(until - self.steps_done)
                else:
                    self._whole_step()
                    made = 1
                self.steps_done += made
                self.steps_in_row += made

    def _next_seed(self) -> int:
        """Of the step to come."""
        return derive_seed(self.config.seed, self.steps_done + 1)

    def _whole_step(self) -> None:
        """All that a step does on the device: it draws the batches, trains, and adds up figures."""
        images = self.images
        if images is None:
            images = self.dataset.batch(self._draw_index(self.generator), self.device)
        x1, x2 = [*images.chunk(self.batches), None][:2]
        figures = self.step(x1, x2)
        self.sums += figures
        self.finite_steps += self.sums.isfinite()
        if self.penalty:
            self.steps_made += 1

    def _draw_index(self, generator: torch.Generator) -> Tensor:
        """Which images a step takes, this process's part of every batch one after the other."""
        shape = (self.batches, self.config.batch_size)
        where = generator.device
        index = torch.randint(len(self.dataset), shape, generator=generator, device=where)
        return index[:, self.shard].flatten()

    def _read_images(self) -> None:
        """Put the next step's images in their place, drawn on the host by (seed, step)."""
        index = self._draw_index(torch.Generator().manual_seed(self._next_seed()))
        self.images.copy_(self.dataset.batch(index, self.device))

    @contextlib.contextmanager
    def _on_own_stream(self) -> Iterator[None]:
        """On CUDA, what is started within follows what was started before, and on that stream."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            yield

    def wait(self) -> None:
        """Return once all steps are made."""
        if self.stream is not None:
            self.stream.synchronize()

    def check_finite(self) -> None:
        """Raise UserError with the step and the term where a figure is not finite any more."""
        finite_steps = self.world.all_reduce_min(self.finite_steps).tolist()
        first = min(finite_steps)
        if first < self.steps_in_row:
            step = self.steps_done - self.steps_in_row + first + 1
            term = self.figures[finite_steps.index(first)]
            raise UserError(f"{term} is not finite at step {step}. {_WHAT_TO_TRY}")

    def check_weights(self) -> None:
        """Raise UserError where a weight is not finite, as the next step's figures would tell."""
        for name, network in (("VAE", self.vae), ("discriminator", self.discriminator)):
            if network and not all(bool(p.isfinite().all()) for p in network.parameters()):
                raise UserError(
                    f"the {name} is not finite after step {self.steps_done}. {_WHAT_TO_TRY}"
                )

    def mean_figures(self) -> dict[str, float]:
        """The mean of every figure over the steps since the last row of the log."""
        means = (self.world.all_reduce_mean(self.sums) / self.steps_in_row).tolist()
        return dict(zip(self.figures, means, strict=True))

    def reset_figures(self) -> None:
        """Begin the next row of the log."""
        self.steps_in_row = 0
        self.sums.zero_()
        self.finite_steps.zero_()

    def state_dict(self) -> dict[str, object]:
        """Everything of a checkpoint but what `fit`'s caller knows: tensors and plain values."""
        return {
            "config": asdict(self.config),
            "dataset": describe_dataset(self.dataset, self.config.dataset_options()),
            "step": self.steps_done,
            "vae": self.vae.state_dict(),
            "vae_optimizer": self.vae_optimizer.state_dict(),
            "discriminator": self.discriminator.state_dict() if self.discriminator else None,
            "disc_optimizer": self.disc_optimizer.state_dict() if self.discriminator else None,
            "generator": self.generator.get_state(),
            "sums": self.world.all_reduce_mean(self.sums),
            "finite_steps": self.world.all_reduce_min(self.finite_steps),
            "threads": torch.get_num_threads(),
            "torch_version": str(torch.__version__),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint of the same settings, whatever device it was made on."""
        self.steps_done = state["step"]
        self.steps_made.fill_(self.steps_done)
        self.steps_in_row = self.steps_done % self.config.log_every
        self.vae.load_state_dict(state["vae"])
        _load_moments(self.vae_optimizer, state["vae_optimizer"])
        if self.discriminator:
            self.discriminator.load_state_dict(state["discriminator"])
            _load_moments(self.disc_optimizer, state["disc_optimizer"])
        if state["generator"].shape == self.generator.get_state().shape:  # of the same device
            self.generator.set_state(state["generator"])
        else:
            self.generator.manual_seed(self._next_seed())
        self.sums.copy_(state["sums"])
        self.finite_steps.copy_(state["finite_steps"])
        if self.graphed:
            self.graphed.forget()


def _load_moments(optimizer: Adam, state: dict) -> None:
    """The moments of a checkpoint, but not its settings, which go by the device."""
    settings = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state["state"], "param_groups": settings})


_WHAT_TO_TRY = (
    "No checkpoint was written of it, and an earlier one is as it was. Try a smaller "
    "--lr, --lr_disc, --beta or --gamma, or --precision fp32, with --overwrite"
)
