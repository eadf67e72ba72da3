"""all-MiniLM-L6-v2: a BERT of six layers, whose token vectors are averaged and scaled to length one.

Wang et al. 2020, https://arxiv.org/abs/2002.10957; Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084.
"""

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts import layout
from training import schedules
from training.batching import process, processes
from training.families import Evaluated
from training.families.minilm import weights
from training.families.minilm.spec import TOKENS, WIDTH

_VOCABULARY = 30_522
_HEADS = 12
_EPSILON = 1e-12  # of BERT's layer norms
# What is added to the attention to a token that is none. Its exponential is 0, and float16 has it.
_IGNORED = -1e4

Texts = dict[str, Tensor]  # input_ids and attention_mask, int32 [B, L]


class Module(pl.LightningModule):
    """The encoder and how it learns: each query's own document against those of the others in its batch.

    Multiple negatives ranking (Henderson et al. 2017, https://arxiv.org/abs/1705.00652), in both directions.

    Args:
        layers: Of the encoder; of the trained weights six.
        wider: What a layer widens each token to; of the trained weights 1,536.
        pretrained: Whether a fit begins with the trained weights.
        lr: The schedule's highest learning rate.
        scale: What cosines are multiplied by before the softmax.
        dropout: Share of the activations that training leaves out.
    """

    def __init__(
        self,
        layers: int = 6,
        wider: int = 1536,
        pretrained: bool = True,
        lr: float = 5e-5,
        scale: float = 20.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = _Encoder(layers, wider, dropout)

    def prepare_data(self) -> None:
        """Fetch the weights if they are not there; Lightning calls this in one process only.

        Raises:
            DataError: they cannot be had.
        """
        if self.hparams["pretrained"]:
            weights.locate(layout.data())

    def setup(self, stage: str) -> None:
        """Begin a fit with the trained weights; what is resumed or tested has its own."""
        if stage == "fit" and self.hparams["pretrained"]:
            self.network.load_state_dict(weights.read(weights.locate(layout.data()), TOKENS.max))

    def served(self) -> nn.Module:
        """Return what is exported: input_ids and attention_mask, int32 [B, L], to the embedding, float32 [B, 384]."""
        return self.network

    def training_step(self, batch: tuple[Texts, Texts], batch_idx: int) -> Tensor:
        """Return the cross-entropy of queries and documents, row by row of the same meaning.

        Among several processes each holds its own against those of all, as one process would.
        """
        queries, documents = (self.network(**texts) for texts in batch)
        scale, own = self.hparams["scale"], torch.arange(len(queries), device=queries.device)
        own = own + process() * len(queries)
        to_documents = scale * queries @ self._of_all(documents).T
        to_queries = scale * documents @ self._of_all(queries).T
        loss = (F.cross_entropy(to_documents, own) + F.cross_entropy(to_queries, own)) / 2
        self.log("train_loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(own))
        return loss

    def validation_step(self, batch: tuple[Texts, Tensor], batch_idx: int) -> Evaluated:
        """Return what the metric is computed from."""
        return self._evaluate(batch)

    def test_step(self, batch: tuple[Texts, Tensor], batch_idx: int) -> Evaluated:
        """Return what the metric is computed from."""
        return self._evaluate(batch)

    def configure_optimizers(self) -> Any:
        """Return AdamW, whose learning rate rises over a tenth of the run's steps and then falls to nothing."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"], weight_decay=0.01)
        steps = schedules.steps(self.trainer)
        warmup = max(1, steps // 10)

        def share(step: int) -> float:
            return min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _of_all(self, embeddings: Tensor) -> Tensor:
        """Return those of every process, [B, 384], in the order of the processes; gradients reach them all."""
        if processes() == 1:
            return embeddings
        gathered: Tensor = self.all_gather(embeddings, sync_grads=True)  # type: ignore[assignment]  # as it was given
        return gathered.flatten(0, 1)

    def _evaluate(self, batch: tuple[Texts, Tensor]) -> Evaluated:
        texts, targets = batch
        return {"outputs": {"embedding": self.network(**texts)}, "targets": targets}


class _Encoder(nn.Module):
    """Tokens to a unit vector: BERT, the mean over a text's tokens, and its length taken out."""

    def __init__(self, layers: int, wider: int, dropout: float) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(_VOCABULARY, WIDTH), nn.Embedding(TOKENS.max, WIDTH)
        self.norm, self.dropout = nn.LayerNorm(WIDTH, _EPSILON), nn.Dropout(dropout)
        self.layers = nn.ModuleList(_Layer(wider, dropout) for _ in range(layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Turn int32 [B, L] and its mask into float32 [B, 384]."""
        mask = attention_mask.float()
        x = self.dropout(self.norm(self.words(input_ids) + self.positions.weight[: input_ids.shape[1]]))
        ignored = (1 - mask)[:, None, None, :] * _IGNORED
        for layer in self.layers:
            x = layer(x, ignored)
        share = mask / mask.sum(dim=1, keepdim=True)
        mean = (x * share[:, :, None]).sum(dim=1)
        return F.normalize(mean, dim=1)


class _Layer(nn.Module):
    """One of BERT's: every token looks at all others of its text, then is computed with by itself."""

    def __init__(self, wider: int, dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value, self.attended = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attended_norm, self.norm = nn.LayerNorm(WIDTH, _EPSILON), nn.LayerNorm(WIDTH, _EPSILON)
        self.wider, self.back = nn.Linear(WIDTH, wider), nn.Linear(wider, WIDTH)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, ignored: Tensor) -> Tensor:
        """Turn [B, L, 384] into the same; `ignored`, [B, 1, 1, L], is added to the attention."""
        query, key, value = (_in_heads(part(x)) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) / (WIDTH // _HEADS) ** 0.5 + ignored
        seen = self.dropout(scores.softmax(dim=3)) @ value
        x = self.attended_norm(x + self.dropout(self.attended(seen.transpose(1, 2).flatten(2))))
        result: Tensor = self.norm(x + self.dropout(self.back(F.gelu(self.wider(x)))))
        return result


def _in_heads(x: Tensor) -> Tensor:
    """Turn [B, L, 384] into [B, heads, L, 32]."""
    batch, length, _ = x.shape
    return x.view(batch, length, _HEADS, WIDTH // _HEADS).transpose(1, 2)
