"""Training: Algorithm 2 of Kim & Mnih (2018), one step at a time, and the loop around it."""

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam

from factorvae.checkpoint import FILE_NAME, describe_dataset, save_checkpoint
from factorvae.config import TrainConfig
from factorvae.critic import Critic
from factorvae.datasets import Dataset
from factorvae.errors import UserError
from factorvae.models import VAE, Discriminator
from factorvae.objective import kl_per_latent, permute_dims, recon_loss, reparameterize
from factorvae.runlog import DISCRIMINATOR_COLUMNS, RunLog, StepBar
from factorvae.signals import StopSignals

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def derive_seed(seed: int, step: int) -> int:
    """The seed of everything random in one step (steps count from 1; 0 draws the weights)."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Trainer:
    """The networks, their optimisers, and a step.

    Args:
        config: the run's settings.
        dataset: gives `len` and `batch(index, device)`.
        device: where everything lies.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset, device: torch.device) -> None:
        self.config = config
        self.dataset = dataset
        self.device = device
        self.dtype = DTYPES[config.precision]
        self.steps_done = 0

        weights = torch.Generator().manual_seed(derive_seed(config.seed, 0))
        self.vae = VAE(dataset.image_shape, config.latent_dim, config.hidden_dim, weights)
        self.vae.to(device)
        self.vae_optimizer = Adam(self.vae.parameters(), config.lr, (0.9, 0.999), fused=True)

        self.discriminator = self.critic = self.disc_optimizer = None
        if config.gamma > 0:
            self.discriminator = Discriminator(
                config.latent_dim, config.disc_depth, config.disc_width, weights
            ).to(device)
            self.critic = Critic(self.discriminator, config.batch_size, self.dtype)
            self.disc_optimizer = Adam(
                self.discriminator.parameters(), config.lr_disc, (0.5, 0.9), fused=True
            )

        # reseeded by (seed, step) in every step: its state in a checkpoint is for the record
        self.generator = torch.Generator(device)
        self.figures = ["recon", "kl", *(DISCRIMINATOR_COLUMNS if self.critic else ())]
        self.figures += [f"kl_{j}" for j in range(config.latent_dim)]
        # since the last row of the log: the steps, the sum of each figure, its steps while finite
        self.steps_in_row = 0
        self.sums = torch.zeros(len(self.figures), dtype=torch.float64, device=device)
        self.finite_steps = torch.zeros(len(self.figures), dtype=torch.int64, device=device)

    def step(self, x1: Tensor, x2: Tensor | None) -> Tensor:
        """One step of Algorithm 2 on two independent batches of images.

        Args:
            x1, x2: [B, C, H, W] in [0, 1]; with gamma 0, there is no second batch.

        Returns:
            The figures named in `self.figures`, before the step: float32 [len(figures)].
        """
        config = self.config
        mu, logvar = self.vae.encode(x1.to(self.dtype))  # [B, latent_dim] each
        z = reparameterize(mu, logvar, self._noise(mu))
        recon = recon_loss(self.vae.decode(z.to(self.dtype)), x1)
        kl_latents = kl_per_latent(mu, logvar)  # [latent_dim]
        kl = kl_latents.sum()
        tc = self.critic.total_correlation(z) if self.critic else torch.zeros_like(kl)
        loss = recon + config.beta * kl + config.gamma * tc  # Eq. 2
        self.vae_optimizer.zero_grad()
        loss.backward()
        self.vae_optimizer.step()
        figures = [recon, kl]

        if self.critic:
            with torch.no_grad():
                mu2, logvar2 = self.vae.encode(x2.to(self.dtype))  # by the encoder just updated
                z2 = reparameterize(mu2, logvar2, self._noise(mu2))
                z_perm = permute_dims(z2, self.generator)
            disc_loss, disc_accuracy = self.critic.backward(z_perm)  # against the z above
            self.disc_optimizer.step()
            figures += [tc, disc_loss, disc_accuracy]
        return torch.cat([torch.stack(figures), kl_latents]).detach()

    def _noise(self, mu: Tensor) -> Tensor:
        return torch.randn(mu.shape, generator=self.generator, device=self.device)

    def advance(self) -> None:
        """Draw the next step's batches by (seed, step), make the step, and add up its figures."""
        config = self.config
        seed = derive_seed(config.seed, self.steps_done + 1)
        generator = self.generator.manual_seed(seed)
        where = self.dataset.index_device(self.device)
        if where != self.device:  # an index on the device would have the host wait for it
            generator = torch.Generator(where).manual_seed(seed)
        batches = 2 if self.critic else 1
        size = (batches * config.batch_size,)
        index = torch.randint(len(self.dataset), size, generator=generator, device=where)
        images = self.dataset.batch(index, self.device)
        figures = self.step(*images.split(config.batch_size), *([None] * (2 - batches)))
        self.sums += figures
        self.finite_steps += self.sums.isfinite()
        self.steps_done += 1
        self.steps_in_row += 1

    def check_finite(self) -> None:
        """Raise UserError with the step and the term where a figure is not finite any more."""
        finite_steps = self.finite_steps.tolist()
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
        means = (self.sums / self.steps_in_row).tolist()
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
            "discriminator": self.discriminator.state_dict() if self.critic else None,
            "disc_optimizer": self.disc_optimizer.state_dict() if self.critic else None,
            "generator": self.generator.get_state(),
            "sums": self.sums,
            "finite_steps": self.finite_steps,
            "threads": torch.get_num_threads(),
            "torch_version": str(torch.__version__),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint of the same settings."""
        self.steps_done = state["step"]
        self.steps_in_row = self.steps_done % self.config.log_every
        self.vae.load_state_dict(state["vae"])
        self.vae_optimizer.load_state_dict(state["vae_optimizer"])
        if self.critic:
            self.discriminator.load_state_dict(state["discriminator"])
            self.disc_optimizer.load_state_dict(state["disc_optimizer"])
        if state["generator"].shape == self.generator.get_state().shape:  # of the same device
            self.generator.set_state(state["generator"])
        self.sums.copy_(state["sums"])
        self.finite_steps.copy_(state["finite_steps"])


_WHAT_TO_TRY = (
    "No checkpoint was written of it, and an earlier one is as it was. Try a smaller --lr or "
    "--gamma, or --precision fp32, with --overwrite"
)


def total_steps(config: TrainConfig, num_images: int) -> int:
    """Steps of a whole run: `num_epochs` times the data's images, or `max_steps` if that is less.

    An epoch is as many steps as a pass over the data would be; batches are drawn at random, as in
    Algorithm 2.
    """
    steps = config.num_epochs * max(1, num_images // config.batch_size)
    return min(steps, config.max_steps or steps)


def fit(trainer: Trainer, log: RunLog, run_dir: Path, until: int) -> int:
    """Train until so many steps are done, or a signal comes; 0, or the signal's number.

    Rows of the log and checkpoints are written on the way, and a checkpoint at the end.
    """
    config = trainer.config
    row_start = time.monotonic()

    def save() -> None:
        trainer.check_finite()
        trainer.check_weights()
        log.to_disk()  # a checkpoint's rows are there if it is
        finished = trainer.steps_done >= until
        save_checkpoint(run_dir / FILE_NAME, {**trainer.state_dict(), "finished": finished})

    with StopSignals() as stop, StepBar(trainer.steps_done, until) as bar:
        first_step = trainer.steps_done
        while trainer.steps_done < until and not stop.signal:
            trainer.advance()
            bar.advance()
            if trainer.steps_done % config.log_every == 0 or trainer.steps_done == until:
                trainer.check_finite()
                figures = trainer.mean_figures()
                steps = min(trainer.steps_in_row, trainer.steps_done - first_step)
                now = time.monotonic()
                rate = steps * config.batch_size / (now - row_start)
                row_start = now
                log.row({"step": trainer.steps_done, **figures, "images_per_second": rate})
                bar.show(figures)
            if trainer.steps_done % config.log_every == 0:  # a last, partial row is not begun anew
                trainer.reset_figures()
            if trainer.steps_done % config.checkpoint_every == 0 and trainer.steps_done < until:
                save()
        save()
    return stop.signal
