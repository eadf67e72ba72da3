"""What the sentence encoder promises."""

from contracts.judging.card import Card
from contracts.judging.metric import recall_at
from contracts.spec import DynamicDim, Limits, ModelSpec, TensorSpec

_BATCH = DynamicDim("batch", min=1, opt=8, max=32)
# A batch is as wide as its longest text; the model was trained on at most 256 tokens, the two around a text among them.
TOKENS = DynamicDim("tokens", min=1, opt=32, max=256)
WIDTH = 384  # of the embedding

_CARD = Card(
    purpose="Finds English texts that mean about the same: search, grouping, near-duplicates.",
    data="all-MiniLM-L6-v2, trained by others on a billion pairs of English sentences; fine-tuned on example sentences "
    "and glosses of WordNet 3.0.",
    splits="By synset, drawn at random: 1,000 example sentences with their glosses to test, 500 to validate, all "
    "others to train. 1,000 and 250 glosses that nothing looks for are among the documents.",
    limits=(
        "256 tokens of a text count, some 200 words.",
        "Other languages than English are read, and mean little.",
        "Negations and numbers change a vector little: `it is` is near to `it is not`.",
        "The metric is of short texts, dictionary glosses; of your own texts it says nothing.",
    ),
    not_for=(
        "Decisions about people by what they write.",
        "Comparing vectors of two releases: after a fit all texts are embedded anew.",
    ),
)

SPEC = ModelSpec(
    family="minilm",
    model="minilm_encoder",
    task="embedding",
    metric=recall_at(10),  # of example sentences: whether the gloss is among the ten that are nearest
    inputs=(
        TensorSpec("input_ids", "int32", (_BATCH, TOKENS)),
        TensorSpec("attention_mask", "int32", (_BATCH, TOKENS)),  # 1 of a text, 0 of what is behind its end
    ),
    outputs=(TensorSpec("embedding", "float32", (_BATCH, WIDTH)),),
    agree_within=0.001,  # of cosine distance: whoever keeps embeddings compares those of one release with the next's
    limits={
        # The same arithmetic in another runtime. No text may be further away than a cosine of 0.9999: this is less.
        "fp32": Limits({"embedding": 1e-4}, agreement=1.0, drop=0.3),
        # An element is some 0.05: float16 has about 0.05 % of that, through six layers.
        "fp16": Limits({"embedding": 0.01}, agreement=1.0, drop=0.5),
        # 8 bits move every vector. What they may cost is the same: a cosine of 0.999, for every text.
        "int8": Limits({"embedding": 0.05}, agreement=1.0, drop=1.0, computed_share=0.5),
    },
    card=_CARD,
)
