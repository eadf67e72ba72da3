"""What the flags ask for and a fit cannot do: said before it begins, where Lightning would do something else."""

import re
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch

from training.errors import TrainingError

# Half precision without autocast: a family's own float32, of scaling or of a loss, meets weights of 16 bits.
_WHOLLY = ("16-true", "bf16-true")


def check(trainer: Any) -> None:
    """Check the trainer's flags.

    Raises:
        TrainingError: they ask for what trains nothing, or for a precision that the device, or a family, does not have.
    """
    for flag in ("max_epochs", "max_steps", "limit_train_batches", "max_time"):
        if getattr(trainer, flag) in (0, 0.0):
            raise TrainingError(f"--trainer.{flag} 0 trains nothing", hint="test and validate judge a checkpoint")
    if str(trainer.strategy).startswith("ddp_") and re.search("spawn|fork|notebook", str(trainer.strategy)):
        raise TrainingError(
            f"--trainer.strategy {trainer.strategy} hands a fit to its processes in one piece, which this one is not",
            hint="--trainer.strategy ddp has each of them begin with the same command",
        )
    precision = str(trainer.precision)
    if on_cpu(trainer) and precision in ("16-mixed", "16"):
        raise TrainingError(
            "a CPU has no mixed precision of float16",
            note="its gradients are scaled by what GPUs alone have; Lightning would train in bfloat16 instead",
            hint="--trainer.precision bf16-mixed",
        )
    if precision in _WHOLLY:
        raise TrainingError(
            f"--trainer.precision {precision} trains weights of 16 bits, from which no FP32 graph can be exported",
            hint=f"--trainer.precision {precision.removesuffix('-true')}-mixed keeps them in float32",
        )


def on_cpu(trainer: Any) -> bool:
    """Tell whether the trainer's flags mean the CPU."""
    return bool(trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.cuda.is_available()))


def check_model(given: Mapping[str, Any], taken: Mapping[str, Any]) -> None:
    """Check what the flags have of the model with what is taken: of a checkpoint, where one is named.

    Raises:
        TrainingError: they differ.
    """
    for name, value in given.items():
        if taken[name] != value:
            raise TrainingError(
                f"--model.{name} {value} is not what the checkpoint was trained with, {taken[name]}",
                note="its network, and its optimizer's state with the learning rate in it, are taken as they are",
                hint=f"leave --model.{name} out, or begin a new run with it",
            )


class CheckSteps(pl.Callback):
    """A callback that refuses steps that are none as they were asked for."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check how many batches make a step, and a resumed run's plan for its learning rate, restored by now."""
        batches, together = trainer.num_training_batches, trainer.accumulate_grad_batches
        if together > batches:
            raise TrainingError(
                f"a step of {together} batches is more than an epoch's {batches}",
                note="gradients are not accumulated beyond an epoch: every step would be of fewer than was asked for",
                hint=f"--trainer.accumulate_grad_batches {batches} at most, or a larger --data.batch_size",
            )
        steps = trainer.estimated_stepping_batches
        for config in trainer.lr_scheduler_configs:
            planned = getattr(config.scheduler, "total_steps", None)
            if planned is not None and steps > planned:
                raise TrainingError(
                    f"the learning rate of this run was planned for {planned} steps, and {steps:.0f} are asked for",
                    note="a one-cycle schedule has fallen to nothing by its end, and cannot go beyond",
                    hint="resume with the flags that it was begun with, or begin a new run with more epochs",
                )


class WeighLastStep(pl.Callback):
    """A callback that makes the last step of an epoch the mean of its own batches, of which it may have fewer.

    Lightning divides their gradients by as many as the other steps have.
    """

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Multiply the gradients of such a step, before they are clipped."""
        together = trainer.accumulate_grad_batches
        own = trainer.fit_loop.epoch_loop.batch_progress.current.ready % together
        if not own:
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(together / own)
