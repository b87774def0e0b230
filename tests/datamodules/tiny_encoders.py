"""Text encoders of a few hundred weights, as folders that `transformers` reads."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, T5Config
from transformers.models.t5.modeling_t5 import T5Model

TEXT = "put the red blue green cube ball in on a bowl plate box open drawer close"


def _tokenizer(path: Path) -> int:
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *TEXT.split()])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(path)
    return len(words)


def write_t5(path: Path) -> Path:
    size = _tokenizer(path)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=size, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2,
        pad_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    T5Model(config).save_pretrained(path, safe_serialization=True)
    return path


def write_bert(path: Path, *, pooling: str = "", behind: str = "") -> Path:
    """With `pooling`, a folder as sentence-transformers writes it; `behind` adds a module."""
    size = _tokenizer(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(path, safe_serialization=True)
    if pooling:
        kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_More", behind)]
        modules = [
            {
                "idx": i,
                "name": str(i),
                "path": place,
                "type": f"sentence_transformers.models.{kind}",
            }
            for i, (place, kind) in enumerate(kinds)
            if kind
        ]
        (path / "modules.json").write_text(json.dumps(modules))
        (path / "1_Pooling").mkdir()
        chosen = {f"pooling_mode_{pooling}": True, "word_embedding_dimension": 16}
        (path / "1_Pooling" / "config.json").write_text(json.dumps(chosen))
    return path
