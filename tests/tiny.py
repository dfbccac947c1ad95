"""A tiny Qwen3 with random weights, made by code: the same model as a GGUF and as a Hugging Face folder.

It shows mechanics, never meaning: what it says is noise, but the same noise on every engine. Two properties are
built in, because random weights alone would give neither: it writes printable ASCII only, so that no character
is split between two stream events, and it never ends by itself, so that a long answer is long.
"""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, LlamaFileType, TokenType, get_tensor_name_map

from tests.checkpoint import Floats, Tensor, Vocabulary, bfloat16, describe, write_safetensors, write_tokenizer

SEED = 20261124
LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD, INNER = 2, 256, 4, 2, 64, 512
WINDOW = 32768
THETA = 1e6
EPSILON = 1e-6

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKERS = ("<tool_call>", "</tool_call>")
PIECES = " the| and| model| weights| order| answer| is| of| in| to|ing|tion|er|re|system|user|assistant|tool"
TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n' }}{%- endif %}
{{- 'Functions:\\n' }}
{%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}
{{- 'Call one with <tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if not (tools and loop.first and message.role == 'system') %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content %}{{- message.content }}{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson + '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def gguf(path: Path) -> Path:
    """Write it as one F16 GGUF (about 3 MB) that llama.cpp and Ollama read. Returns ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "qwen3")
    writer.add_name("tiny random Qwen3")
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    writer.add_context_length(WINDOW)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_freq_base(THETA)
    writer.add_layer_norm_rms_eps(EPSILON)
    _add_tokenizer(writer)
    names = get_tensor_name_map(MODEL_ARCH.QWEN3, LAYERS)
    for name, values in weights().items():
        writer.add_tensor(
            f"{names.get_name(name.removesuffix('.weight'))}.weight",
            values if values.ndim == 1 else values.astype(np.float16),
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def huggingface(folder: Path) -> Path:
    """Write the same weights as a Hugging Face folder in bf16, which vLLM reads. Returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: Tensor(values.shape, lambda values=values: iter((values,))) for name, values in weights().items()}
    write_safetensors(folder / "model.safetensors", tensors)
    write_tokenizer(folder, vocabulary(), window=WINDOW)
    describe(
        folder,
        vocabulary=vocabulary(),
        architectures=["Qwen3ForCausalLM"],
        model_type="qwen3",
        vocab_size=_size(),
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD,
        max_position_embeddings=WINDOW,
        rms_norm_eps=EPSILON,
        rope_theta=THETA,
        attention_bias=False,
        tie_word_embeddings=False,
    )
    return folder


@cache
def vocabulary() -> Vocabulary:
    """256 bytes, then what the merges make, then the added tokens."""
    tokens = list(_bytes())
    merges: list[str] = []
    for piece in PIECES.split("|"):
        whole, *rest = piece.replace(" ", "Ġ")
        for letter in rest:
            if whole + letter not in tokens:
                tokens.append(whole + letter)
                merges.append(f"{whole} {letter}")
            whole += letter
    added = dict.fromkeys(CONTROL, True) | dict.fromkeys(MARKERS, False)
    return Vocabulary(tokens=tokens, merges=merges, added=added, template=TEMPLATE)


def _bytes() -> dict[str, int]:
    """GPT-2's printable stand-in for every byte: itself where it prints, else the next letter from U+0100 on."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in prints]
    return {chr(byte): byte for byte in prints} | {chr(0x100 + order): byte for order, byte in enumerate(others)}


def _size() -> int:
    return len(vocabulary().tokens) + len(vocabulary().added)


@cache
def weights() -> dict[str, Floats]:
    """Hugging Face name → values. All are exact in bf16 and in F16, so that both files hold the same model."""
    random = np.random.default_rng(SEED)

    def matrix(out: int, into: int, gain: float = 1.0) -> Floats:
        return random.standard_normal((out, into), dtype=np.float32) * np.float32(gain / into**0.5)

    tensors = {"model.embed_tokens.weight": matrix(_size(), HIDDEN, HIDDEN**0.5)}
    for layer in range(LAYERS):
        block = f"model.layers.{layer}"
        tensors |= {
            f"{block}.input_layernorm.weight": np.ones(HIDDEN, np.float32),
            f"{block}.self_attn.q_proj.weight": matrix(HEADS * HEAD, HIDDEN),
            f"{block}.self_attn.k_proj.weight": matrix(KV_HEADS * HEAD, HIDDEN),
            f"{block}.self_attn.v_proj.weight": matrix(KV_HEADS * HEAD, HIDDEN),
            f"{block}.self_attn.q_norm.weight": np.full(HEAD, 2, np.float32),
            f"{block}.self_attn.k_norm.weight": np.ones(HEAD, np.float32),
            f"{block}.self_attn.o_proj.weight": matrix(HIDDEN, HEADS * HEAD, 3),
            f"{block}.post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
            f"{block}.mlp.gate_proj.weight": matrix(INNER, HIDDEN),
            f"{block}.mlp.up_proj.weight": matrix(INNER, HIDDEN),
            f"{block}.mlp.down_proj.weight": matrix(HIDDEN, INNER, 3),
        }
    tensors |= {"model.norm.weight": np.ones(HIDDEN, np.float32), "lm_head.weight": matrix(_size(), HIDDEN, 3)}
    _keep_to_ascii(tensors)
    return {name: _exact(values) for name, values in tensors.items()}


def _keep_to_ascii(tensors: dict[str, Floats]) -> None:
    """Channel 0 is a constant that the layers leave alone; from it the output layer reads a bias per token."""
    for name, values in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            values[0] = 0
    tensors["model.embed_tokens.weight"][:, 0] = 4
    wanted = set(string.ascii_letters + string.digits + "Ġ.,!?-")
    bias = [0 if set(token) <= wanted else -16 for token in vocabulary().tokens] + [-16] * len(vocabulary().added)
    tensors["lm_head.weight"][:, 0] = bias


def _exact(values: Floats) -> Floats:
    """The nearest bf16 that F16 holds too: its mantissa is longer, its range shorter."""
    rounded = (bfloat16(values).astype(np.uint32) << 16).view(np.float32)
    return np.where(np.abs(rounded) < 2.0**-14, np.float32(0), rounded)


def _add_tokenizer(writer: GGUFWriter) -> None:
    words = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*words.tokens, *words.added])
    kinds = [TokenType.CONTROL if control else TokenType.USER_DEFINED for control in words.added.values()]
    writer.add_token_types([TokenType.NORMAL] * len(words.tokens) + kinds)
    writer.add_token_merges(words.merges)
    writer.add_eos_token_id(words.id("<|im_end|>"))
    writer.add_pad_token_id(words.id("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(words.template)
