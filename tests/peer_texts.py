"""The model of the reference cases of TAG and LAMP, as a target of ours."""

from safetensors.torch import load_file

from mibench.data import InputSpec
from mibench.targets.transformer import Transformer


def peer_model(folder, tokens):
    """The reference case's model as a target of ours: its names mapped, the one segment added to the positions."""
    given = load_file(folder / "bert_L2_H96_fp16exact.safetensors")
    given = {name: value.float() for name, value in given.items()}
    spec = InputSpec("text", (tokens,), 2, vocabulary=len(given["bert.embeddings.word_embeddings.weight"]), padding=0)
    model = Transformer(spec=spec, depth=2, width=96, heads=4, hidden=256).eval()
    begin = "bert.embeddings."
    positions = given[f"{begin}position_embeddings.weight"] + given[f"{begin}token_type_embeddings.weight"][0]
    names = {
        "normalise.table": f"{begin}word_embeddings.weight", "stages.0.norm": f"{begin}LayerNorm",
        "stages.3.dense": "bert.pooler.dense", "head": "classifier",
    }  # fmt: skip
    parts = {
        "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
        "out": "attention.output.dense", "norm1": "attention.output.LayerNorm", "up": "intermediate.dense",
        "down": "output.dense", "norm2": "output.LayerNorm",
    }  # fmt: skip
    for layer in (0, 1):
        begins = f"bert.encoder.layer.{layer}"
        names |= {f"stages.{1 + layer}.{ours}": f"{begins}.{theirs}" for ours, theirs in parts.items()}
    mapped = {}
    for name in model.state_dict():
        begins, _, kind = name.rpartition(".")
        table = f"{begin}position_embeddings.weight" if "positions" in name else names.get(name)
        mapped[name] = table or f"{names[begins]}.{kind}"
    state = {name: given[theirs] for name, theirs in mapped.items()} | {"stages.0.positions": positions[:tokens]}
    model.load_state_dict(state)
    return model, spec, mapped
