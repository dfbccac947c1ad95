"""What vLLM prints when it does not start, and what that means. Order: the cause before its consequences.

Source: messages in the code of vLLM 0.33, those about KV memory and context seen on 0.32.
"""

from __future__ import annotations

from serving.engines.symptoms import Symptom

LESS = "lower context or slots of the model in models.toml, or free memory"
OTHER_MODEL = "choose another model in models.toml, or a newer ownweights"

SYMPTOMS = (
    Symptom(
        r"max seq len \((?P<asked>\d+)\).*estimated maximum model length is (?P<context>[1-9][0-9]{0,11})\b",
        "the KV cache has room for a context of {context}, not of {asked}",
        "context = {context} for the model in models.toml",
    ),
    # Or of a length of 0.
    Symptom(
        r"No available memory for the cache blocks|estimated maximum model length is",
        "no memory is left for the KV cache",
        LESS,
    ),
    Symptom(r"Available memory on node .* less than desired", "other programs hold the memory", LESS),
    Symptom(
        r"Free memory on device (?P<device>\S+) \((?P<free>[^)]*)\) on startup is less",
        "another program holds memory of {device}: {free} free",
        "nvidia-smi  # shows which; end it, then: make deploy",
    ),
    Symptom(
        r"not enough GPU memory|CUDA out of memory|torch\.OutOfMemoryError",
        "not enough GPU memory",
        "a smaller model or precision, less context, or more GPUs",
    ),
    Symptom(
        r"model_len \((?P<asked>\d+)\) is greater than the derived max_model_len \(\w+=(?P<context>[1-9][0-9]{0,11})\b",
        "the model's own limit is a context of {context}, not {asked}",
        "context = {context} for the model in models.toml",
    ),
    Symptom(
        r"No module named '(?P<name>[^']*)'",
        "the engine's environment lacks `{name}`",
        "remove its folder under `ownweights paths` environments, then: make deploy",
    ),
    Symptom(
        r"Model architectures (?P<names>\[[^]]*\]) (are not supported|failed to be inspected)",
        "this vLLM cannot run {names}",
        OTHER_MODEL,
    ),
    Symptom(
        r"was supported in vLLM until (?P<version>v[\d.]+)", "vLLM dropped this model after {version}", OTHER_MODEL
    ),
    Symptom(
        r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<n>\d+)",
        "{heads} attention heads cannot be split over {n} GPUs",
        "another number of GPUs",
    ),
    Symptom(
        r"World size \((?P<ranks>\d+)\) is larger than the number of available GPUs \((?P<gpus>\d+)\)",
        "planned for {ranks} GPUs, and {gpus} can be used",
        "ownweights hardware  # then: make deploy",
    ),
    Symptom(
        r"Bfloat16 is only supported on GPUs with compute capability",
        "the GPU is too old for bfloat16",
        'a newer GPU, or the CPU: [engines] gpu = "none" in models.toml',
    ),
    Symptom(
        r"libcudart\.so|NVIDIA driver on your system is too old",
        "the driver is too old for this build of CUDA 13",
        "install driver 580 or newer",
    ),
    Symptom(r"Failed to infer device type", "vLLM finds no device it can use", "ownweights doctor"),
    Symptom(r"Sparse Attention is not supported on CPU", "the model's sparse attention needs a GPU", OTHER_MODEL),
    Symptom(
        r"safetensors_rust\.SafetensorError|HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer",
        "the weights are damaged",
        "ownweights verify  # names the file; then: make deploy",
    ),
    Symptom(
        r"Cannot find any model weights with `(?P<folder>[^`]*)`",
        "there are no weights in {folder}",
        "ownweights verify  # then: make deploy",
    ),
    Symptom(r"Cannot allocate memory|DefaultCPUAllocator: can't allocate|MemoryError", "not enough memory", LESS),
    Symptom(
        r"Timed out waiting for engine core processes",
        "the engine's own processes did not come up in time",
        "make deploy",
    ),
    # Whatever else its core died of; the last line of the log only says that it did.
    Symptom(
        r"\[core\.py:\d+\] (?P<error>\w+(Error|Exception): .{1,200})", "{error}", "ownweights logs  # the whole story"
    ),
)
