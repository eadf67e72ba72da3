"""What every model of flights promises, whichever it is: one contract, so that each can take another's place."""

from contracts.judging.metric import BRIER, CALIBRATION_ERROR
from contracts.spec import DynamicDim, Limits, ModelSpec, TensorSpec
from training.families.flights import features
from training.families.flights.features import serving

_BATCH = DynamicDim("batch", min=1, opt=16, max=256)

SPEC = ModelSpec(
    family="flights",
    model="flights_delay",
    task="binary",
    inputs=(
        TensorSpec("categories", "int32", (_BATCH, len(serving.CATEGORIES)), columns=serving.CATEGORIES),
        TensorSpec("numbers", "float32", (_BATCH, len(serving.NUMBERS)), columns=serving.NUMBERS),  # NaN: missing
    ),
    outputs=(TensorSpec("probability", "float32", (_BATCH, 1)),),
    labels=("on time", "more than 30 minutes late"),
    vocabularies=features.names(),
    threshold=0.3,  # twice as likely as any flight
    also=(BRIER, CALIBRATION_ERROR),
    # FP32 alone: of trees there is nothing to compute in fewer bits, and the other models take microseconds.
    tensorrt=False,
    limits={
        # A split of a tree that is taken the other way moves a probability by up to 0.007; rounding, by 1e-6.
        "fp32": Limits(
            {"probability": 1e-5}, agreement=0.9999, drop=0.2, also={"brier": 1e-5, "calibration_error": 1e-3}
        ),
    },
)
