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
        "fp32": Limits({"logits": 1e-3, "probabilities": 1e-4}, agreement=0.9995, drop=0.1),
        # float16 has 11 significant bits: about 0.05 % of a logit, through a dozen layers.
        "fp16": Limits({"logits": 0.1, "probabilities": 0.05}, agreement=0.999, drop=0.1),
        # 8 bits move every logit a little; what matters is that answers and accuracy stay.
        "int8": Limits({"logits": 4.0, "probabilities": 0.9}, agreement=0.97, drop=0.5, computed_share=0.7),
    },
)
