"""Training: Algorithm 2 of Kim & Mnih (2018), one step at a time."""

import copy
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam

from factorvae.checkpoint import describe_dataset
from factorvae.config import TrainConfig
from factorvae.datasets import Dataset
from factorvae.datasets.table import OwnImages, as_dataset
from factorvae.errors import UserError
from factorvae.methods import METHODS
from factorvae.models import VAE, Decoder, Encoder, discriminator_of, encode_parts, vae_of
from factorvae.objective import (
    discriminator_accuracy,
    discriminator_loss,
    kl_per_latent,
    permute_dims,
    recon_loss,
    reparameterize,
    total_correlation,
)
from factorvae.penalties import Penalty, bind_penalty
from factorvae.run_log import DISCRIMINATOR_COLUMNS, PENALTY_COLUMNS
from factorvae.schedule import geometric
from factorvae.training import adding, turning, waking
from factorvae.training.batches import Batches
from factorvae.training.cuda_graphs import STEPS_PER_LAUNCH, Launcher
from factorvae.training.distributed import ALONE, World
from factorvae.training.running_figures import RunningFigures

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


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
        vae: what is trained, in place of the paper's networks with weights drawn by the seed.

    Raises:
        UserError: `vae` is for images of another shape or codes of another width.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset | OwnImages,
        device: torch.device | str = "cpu",
        world: World = ALONE,
        graphs: bool = True,
        penalty: Penalty | None = None,
        vae: VAE | None = None,
    ) -> None:
        self.config = config
        self.dataset = dataset = as_dataset(dataset)
        self.device = device = torch.device(device)
        self.world = world
        self.dtype = DTYPES[config.precision]
        self.steps_done = 0
        self.steps_on_device = torch.zeros((), dtype=torch.int64, device=device)  # for CUDA graphs

        weights = torch.Generator().manual_seed(derive_seed(config.seed, 0))
        if vae is not None and config.first_latents:
            raise UserError("first_latents is for a VAE that begins here, with weights of 0")
        self.vae = vae or vae_of(config, dataset.image_shape, weights)
        _check_fits(self.vae, config, dataset)
        self.vae.to(device)
        self.vae_parameters = list(self.vae.parameters())
        self.vae_optimizer = self._adam(self.vae_parameters, config.lr, (0.9, 0.999))
        self._vae = world.parallel(self.vae)
        self.turn_at, self.wake_at = config.turn_at or (), config.wake_at or ()
        self.add_at = config.add_at or ()
        self.trained = None  # which latents are, 1 or 0, where not all of them are from the start
        if config.first_latents:
            self.trained = torch.ones(config.latent_dim, device=device)
            self._open_latents(before=0)

        method = METHODS[config.method]
        settings = {**asdict(config), "num_images": len(dataset)}
        self.penalty = penalty or bind_penalty(config.method, settings)
        self.penalty_given = penalty and getattr(penalty, "__name__", type(penalty).__name__)
        self.discriminator = self.disc_optimizer = None
        if method.discriminator and self.penalty is None:
            self.discriminator = discriminator_of(config, weights).to(device)
            self.disc_parameters = list(self.discriminator.parameters())
            self.disc_optimizer = self._adam(self.disc_parameters, config.lr_disc, (0.5, 0.9))
            self._discriminator = world.parallel(self.discriminator)
        if config.compile:
            self._compile()

        self.generator = torch.Generator(device).manual_seed(self._next_seed())
        self.shard = world.shard(config.batch_size)
        batches = 2 if self.discriminator else 1
        self.batches = Batches(dataset, batches, config.batch_size, device, world)
        self.figures = RunningFigures(self._figure_names(), device, world)
        sizes = (1,) if self.batches.on_host else STEPS_PER_LAUNCH
        self.launcher = Launcher(device, self.generator, sizes if graphs else (), world.alone)

    def _adam(self, parameters: list[nn.Parameter], lr: float, betas: tuple[float, float]) -> Adam:
        return Adam(parameters, lr, betas, fused=True, capturable=self.device.type == "cuda")

    def _compile(self) -> None:
        """Fuse the VAE's kernels, and those of a penalty.

        Not the discriminator's: compiled, it computes all its gradients in each backward pass.
        """
        self.vae.compile()
        self.vae.encoder.compile()
        if self.penalty:
            self.penalty = torch.compile(self.penalty)

    def _figure_names(self) -> list[str]:
        """What `step` returns, in its order."""
        of_method = DISCRIMINATOR_COLUMNS if self.discriminator else ()
        of_method = PENALTY_COLUMNS if self.penalty else of_method
        return ["recon", "kl", *of_method, *(f"kl_{j}" for j in range(self.config.latent_dim))]

    def step(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """One step of Algorithm 2 on two independent batches of images.

        A method without a discriminator makes the first half alone.

        `inputs` limits each backward pass to one network. z goes through the discriminator a second
        time, together with the permuted codes: the first pass's graph, kept for both losses, would
        have its gradients computed twice.

        Args:
            x1, x2: [B, C, H, W] in [0, 1], or this process's part of them; without a
                discriminator, there is no second batch.

        Returns:
            The figures named in `self.figures`, before the step: float32 [len(names)].
        """
        dtype = self.dtype
        beta, gamma = self._weights()
        logits, mu, logvar, z = self._vae(x1.to(dtype), self._noise())
        recon = recon_loss(logits, x1)
        kl_latents = kl_per_latent(mu, logvar)  # [latent_dim]
        kl = kl_latents.sum()
        penalty = torch.zeros_like(kl)
        if self.discriminator:
            # what it tells of one standardised code depends on all: every process takes all of them
            whole = self.discriminator.standardizes
            seen = self.world.all_gather_codes(z)[0] if whole else z
            d_joint = self._discriminator(seen.to(dtype))  # [B, 2]
            penalty = total_correlation(d_joint)
        elif self.penalty:  # of the whole batch: in a world of several, of all processes' codes
            codes = self.world.all_gather_codes(mu, logvar, z)
            penalty = self.penalty(*codes, self.steps_on_device)
        loss = recon + beta * kl + gamma * penalty  # Eq. 2
        self.vae_optimizer.zero_grad()
        loss.backward(inputs=self.vae_parameters)
        if self.trained is not None:
            self._hold_back()
        self.vae_optimizer.step()
        figures = [recon, kl]
        if self.penalty:
            figures += [penalty]

        if self.discriminator:
            with torch.no_grad():
                mu2, logvar2 = self.vae.encode(x2.to(dtype))  # by the encoder just updated
                z2 = reparameterize(mu2, logvar2, self._noise())
                # over the whole batch: in a world of several, codes of all processes change places
                z_perm = permute_dims(self.world.all_gather_rows(z2), self.generator)
                if not whole:
                    z_perm = z_perm[self.shard]
            both = torch.cat([seen.detach(), z_perm])  # [2B, latent_dim]
            d_joint, d_perm = self._discriminator(both.to(dtype)).chunk(2)  # [B, 2] each
            disc_loss = discriminator_loss(d_joint, d_perm)
            self.disc_optimizer.zero_grad()
            disc_loss.backward(inputs=self.disc_parameters)
            self.disc_optimizer.step()
            figures += [penalty, disc_loss, discriminator_accuracy(d_joint, d_perm)]
        return torch.cat([torch.stack(figures), kl_latents]).detach()

    def _weights(self) -> tuple[float | Tensor, float | Tensor]:
        """beta and gamma of this step."""
        config = self.config
        if not config.anneals:
            return config.beta, config.gamma
        when = (self.steps_on_device, config.anneal_from, config.anneal_until)
        return (
            geometric(config.beta_start, config.beta, *when),
            geometric(config.gamma_start, config.gamma, *when),
        )

    def _hold_back(self) -> None:
        """Latents that wait keep their weights of 0, and say nothing."""
        head, hidden = self.vae.encoder.head, self.vae.decoder.hidden
        rows = self.trained.repeat(2)  # of the head: those of mu, then those of logvar
        head.weight.grad.mul_(rows[:, None])
        head.bias.grad.mul_(rows)
        hidden.weight.grad.mul_(self.trained)

    def _open_latents(self, before: int) -> None:
        """Set which latents are trained, by the events that lie before so many steps."""
        if self.trained is None:
            return
        woken = any(step < before for step in self.wake_at)  # and with it all that waited
        added = sum(step < before for step in self.add_at)
        self.trained[self.config.first_latents + added :] = 1 if woken else 0
        self.trained[: self.config.first_latents + added] = 1

    def _noise(self) -> Tensor:
        """N(0, I) for this process's part of a batch, of which every process draws the whole."""
        shape = (self.config.batch_size, self.config.latent_dim)
        return torch.randn(shape, generator=self.generator, device=self.device)[self.shard]

    def advance(self, steps: int = 1) -> None:
        """Make so many steps on batches drawn at random, and add up their figures."""
        until = self.steps_done + steps
        with self.launcher.on_stream():
            while self.steps_done < until:
                if self.steps_done in self.turn_at:
                    self._turn()
                if self.steps_done in self.add_at:
                    self._add()
                if self.steps_done in self.wake_at:  # before a step that trains them
                    self._wake()
                if self.device.type == "cpu":
                    self.generator.manual_seed(self._next_seed())
                if self.batches.on_host:
                    self.batches.read(self._next_seed())
                events = (*self.turn_at, *self.add_at, *self.wake_at)
                ahead = [step for step in events if step > self.steps_done]
                made = self.launcher(self._draw_and_step, min([until, *ahead]) - self.steps_done)
                self.steps_done += made
                self.figures.steps += made

    def _draw_and_step(self) -> None:
        """All that a step does on the device."""
        self.figures.add(self.step(*self.batches.draw(self.generator)))
        self.steps_on_device += 1

    def _turn(self) -> None:
        """Turn latents to where they are independent, in every process alike."""
        parts = self._some_images(turning.NUM_IMAGES, self._last_generator())
        codes = encode_parts(self.vae, parts)
        turning.turn_latents(
            self.vae, self.vae_optimizer, self.discriminator, self.disc_optimizer, *codes
        )

    def _wake(self) -> None:
        """Let faint latents begin anew, in every process alike."""
        generator = self._last_generator()
        parts = [*self._some_images(waking.NUM_IMAGES, generator)]
        waking.wake_latents(self.vae, self.vae_optimizer, parts, generator)
        self._open_latents(before=self.steps_done + 1)

    def _add(self) -> None:
        """One more latent begins, in every process alike."""
        self.check_weights()  # before they go into products that NaN breaks off
        latent = self.config.first_latents + self.add_at.index(self.steps_done)
        parts = self._some_images(adding.NUM_IMAGES, self._last_generator())
        row, bias = self.world.broadcast_from_rank0(
            lambda: adding.residual_direction(self.vae, latent, parts)
        )
        adding.add_latent(self.vae, latent, row, bias, self._last_generator())
        self._open_latents(before=self.steps_done + 1)

    def _last_generator(self) -> torch.Generator:
        """On the CPU, by the seed of the last step."""
        return torch.Generator().manual_seed(derive_seed(self.config.seed, self.steps_done))

    def _some_images(self, count: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Of the training data, drawn at random: in all [count, C, H, W], in parts."""
        index = torch.randint(len(self.dataset), (count,), generator=generator)
        for part in index.to(self.dataset.index_device(self.device)).split(64):
            yield self.dataset.batch(part, self.device)

    def _next_seed(self) -> int:
        """Of the step to come."""
        return derive_seed(self.config.seed, self.steps_done + 1)

    def wait(self) -> None:
        """Return once all steps are made."""
        self.launcher.wait()

    def close(self) -> None:
        """Give back what only further steps would need; what was trained stays."""
        self.launcher.close()

    def check_finite(self) -> None:
        """Raise UserError with the step and the term where a figure is not finite any more."""
        fault = self.figures.first_not_finite()
        if fault is not None:
            term, steps_before = fault
            step = self.steps_done - self.figures.steps + steps_before + 1
            raise UserError(f"{term} is not finite at step {step}. {_WHAT_TO_TRY}")

    def check_weights(self) -> None:
        """Raise UserError where a weight is not finite, or what Adam keeps of it.

        A weight shows in the next step's figures; Adam's squares of gradients overflow long before
        it, and show nowhere.
        """
        parts = [("VAE", self.vae, self.vae_optimizer)]
        if self.discriminator:
            parts.append(("discriminator", self.discriminator, self.disc_optimizer))
        for name, network, optimizer in parts:
            moments = [moment for each in optimizer.state.values() for moment in each.values()]
            kept = {
                f"the {name} is": network.parameters(),
                f"Adam's moments of the {name} are": moments,
            }
            for what, tensors in kept.items():
                if not all(bool(tensor.isfinite().all()) for tensor in tensors):
                    step = self.steps_done
                    raise UserError(f"{what} not finite after step {step}. {_WHAT_TO_TRY}")

    def state_dict(self) -> dict[str, object]:
        """Everything of a checkpoint but what `fit`'s caller knows: tensors and plain values."""
        config = asdict(self.config)
        if self.penalty_given:  # no setting of train.py, which so goes on with no such run
            config["penalty"] = self.penalty_given
        return {
            "config": config,
            "dataset": describe_dataset(self.dataset, self.config.dataset_options()),
            "step": self.steps_done,
            "vae": self.vae.state_dict(),
            "vae_optimizer": self.vae_optimizer.state_dict(),
            "discriminator": self.discriminator.state_dict() if self.discriminator else None,
            "disc_optimizer": self.disc_optimizer.state_dict() if self.discriminator else None,
            "generator": self.generator.get_state(),
            **self.figures.state_dict(),
            "threads": torch.get_num_threads(),
            "torch_version": str(torch.__version__),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint of the same settings, whatever device it was made on."""
        self.steps_done = state["step"]
        self.steps_on_device.fill_(self.steps_done)
        self.vae.load_state_dict(state["vae"])
        _load_moments(self.vae_optimizer, state["vae_optimizer"])
        if self.discriminator:
            self.discriminator.load_state_dict(state["discriminator"])
            _load_moments(self.disc_optimizer, state["disc_optimizer"])
        self._open_latents(before=self.steps_done)
        if state["generator"].shape == self.generator.get_state().shape:  # of the same device
            self.generator.set_state(state["generator"])
        else:
            self.generator.manual_seed(self._next_seed())
        self.figures.load_state_dict(state, self.steps_done % self.config.log_every)
        self.launcher.forget()


def _check_fits(vae: VAE, config: TrainConfig, dataset: Dataset) -> None:
    """Raise UserError where the network is not for these images and codes."""
    if vae.image_shape != tuple(dataset.image_shape):
        raise UserError(f"the VAE takes images {vae.image_shape}, these are {dataset.image_shape}")
    if vae.latent_dim != config.latent_dim:
        raise UserError(f"the VAE has {vae.latent_dim} latents, latent_dim is {config.latent_dim}")
    papers = type(vae.encoder) is Encoder and type(vae.decoder) is Decoder
    for name in ("turn_at", "wake_at"):
        if getattr(config, name) and not papers:
            raise UserError(f"{name} is for the paper's encoder and decoder only")
    if config.stratified and config.batch_size > len(dataset):
        raise UserError(f"stratified: a batch of {config.batch_size} of {len(dataset)} images")


def _load_moments(optimizer: Adam, state: dict) -> None:
    """The moments of a checkpoint, but not its settings, which go by the device."""
    settings = optimizer.state_dict()["param_groups"]
    moments = copy.deepcopy(state["state"])  # what lies on the device already would be shared
    optimizer.load_state_dict({"state": moments, "param_groups": settings})


_WHAT_TO_TRY = (
    "No checkpoint was written of it; one of an earlier step, if any, is as it was. Try a smaller "
    "--lr, --lr_disc, --beta or --gamma, or --precision fp32, with --overwrite"
)
