"""Batch normalisation by the samples of all processes, on CPUs: torch's own, SyncBatchNorm, is for GPUs alone."""

from functools import partial

import torch
from pytorch_lightning.plugins import LayerSync
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from training.batching import processes


class SharedBatchNorm(LayerSync):
    """What `--trainer.sync_batchnorm true` is on CPUs. The layers stay what they are, with their names and state."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Have every layer of batch normalisation take the statistics of all processes in training."""
        for module in _layers(model):
            module.forward = partial(_normalised, module)  # type: ignore[method-assign]  # until it is reverted
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Have them compute as torch has it again."""
        for module in _layers(model):
            module.__dict__.pop("forward", None)
        return model


def _layers(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def _normalised(module: _BatchNorm, x: Tensor) -> Tensor:
    """Normalise [B, C, …] by mean and variance over B, …, of all processes, which have as many samples each."""
    if not module.training:
        as_torch: Tensor = type(module).forward(module, x)
        return as_torch
    over = [0, *range(2, x.dim())]
    var, mean = torch.var_mean(x.float(), over, correction=0)
    # Gradients reach what the others computed: their sum over the processes is what the layer of one would have.
    mine = torch.stack([var + mean.square(), mean])
    square, mean = (all_reduce(mine) / processes()).unbind()  # type: ignore[no-untyped-call]
    var = square - mean.square()
    _track(module, mean.detach(), var.detach(), samples=processes() * x.numel() // x.shape[1])
    shape = [1, -1, *[1] * (x.dim() - 2)]
    scale = torch.rsqrt(var + module.eps)
    shift = -mean * scale
    if module.affine:
        scale, shift = scale * module.weight, shift * module.weight + module.bias
    normalised: Tensor = (x * scale.view(shape) + shift.view(shape)).to(x.dtype)
    return normalised


def _track(module: _BatchNorm, mean: Tensor, var: Tensor, samples: int) -> None:
    """Move the running statistics, as torch does."""
    if not module.track_running_stats or module.running_mean is None or module.running_var is None:
        return
    assert module.num_batches_tracked is not None  # where the others are
    module.num_batches_tracked.add_(1)
    share = module.momentum if module.momentum is not None else 1 / float(module.num_batches_tracked)
    module.running_mean.lerp_(mean.to(module.running_mean.dtype), share)
    module.running_var.lerp_((var * samples / (samples - 1)).to(module.running_var.dtype), share)
