"""How many steps a learning rate is planned for."""

from pytorch_lightning import Trainer

from training.errors import TrainingError

_FEWEST = 5  # of fewer, OneCycleLR divides by zero


def steps(trainer: Trainer) -> int:
    """Return how many steps the fit takes, or some more where it takes next to none.

    Raises:
        TrainingError: it has no end that is known.
    """
    planned = trainer.estimated_stepping_batches
    if planned == float("inf"):
        raise TrainingError(
            "a learning rate that falls until the end needs to know where the end is",
            hint="--trainer.max_epochs or --trainer.max_steps; early stopping and --trainer.max_time may end it before",
        )
    return max(_FEWEST, int(planned))
