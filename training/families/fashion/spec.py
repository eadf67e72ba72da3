"""What the fashion classifier promises."""

from contracts.spec import DynamicDim, Limits, ModelSpec, TensorSpec

_BATCH = DynamicDim("batch", min=1, opt=16, max=64)

SPEC = ModelSpec(
    family="fashion",
    model="fashion_classifier",
    inputs=(TensorSpec("pixels", "uint8", (_BATCH, 1, 28, 28)),),
    outputs=(
        TensorSpec("logits", "float32", (_BATCH, 10)),
        TensorSpec("probabilities", "float32", (_BATCH, 10)),
    ),
    labels=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    limits={
        # The same arithmetic in another runtime: only the order of float32 additions differs.
        "fp32": Limits(accuracy_drop_points=0.02, agreement=0.9995, logit_difference=1e-3),
        # float16 has 11 significant bits: about 0.05 % of a logit, through a dozen layers.
        "fp16": Limits(accuracy_drop_points=0.1, agreement=0.998, logit_difference=0.1),
        # 8 bits move every logit a little; what matters is that answers and accuracy stay.
        "int8": Limits(accuracy_drop_points=0.5, agreement=0.97, logit_difference=4.0),
    },
)
