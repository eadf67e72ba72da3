"""What the fashion classifier promises."""

from contracts.judging.card import Card
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
    card=Card(
        purpose="It tells which of ten kinds of clothing a picture of 28 by 28 grey pixels shows. It is an example: "
        "it shows how this project trains, proves and serves an image model.",
        data="Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017; MIT licence): 70,000 pictures of articles that Zalando "
        "sold, made small, grey and light on black. Nothing was left out.",
        splits="The authors' 60,000 training pictures and 10,000 test pictures. 5,000 of the former, drawn at random "
        "with a fixed seed, are held back for validation. The test pictures are looked at after training only.",
        limits=(
            "Shirts are taken for T-shirts, pullovers and coats far more often than other kinds are taken for another.",
            "Every picture gets one of the ten kinds, also one that shows none of them.",
            "Photographs are made small and grey before it sees them, without keeping their proportions. How often it "
            "is right about those, or about another shop's pictures, was not measured.",
            "Its probabilities were not calibrated.",
        ),
        not_for=(
            "Decisions about people, or about what they wear.",
            "A catalogue's labels without somebody who looks at them.",
        ),
    ),
)
