"""Every setting of a training run: one pydantic model for YAML, form, command line and reference page.

The docstring under a field is its tooltip. ``setting(...)`` adds what the form needs: a label, whether the field
belongs to the basic ones, and the names other trainers use for it (the form's search finds those too).
A field whose type allows a single value exists so that complete configs can be read; the form does not show it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from trainer.prompt_lines import parse_line

CONFIG_VERSION: Literal[1] = 1

Target = Literal["attention", "attention_ff", "full"]
Optimizer = Literal["adamw", "adamw8bit", "adafactor", "sgd"]
LrScheduler = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
Sampler = Literal["ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "ddpm"]
LossType = Literal["l2", "l1", "huber", "smooth_l1"]
TimestepSampling = Literal["uniform", "logit_normal"]

Size = Annotated[int, Field(ge=64, le=4096, multiple_of=8)]
Probability = Annotated[float, Field(ge=0, le=1)]


def setting(default: Any, label: str, *, basic: bool = False, also: tuple[str, ...] = (), **constraints: Any) -> Any:
    """A pydantic field with what the form needs to know about it.

    Args:
        default: the one place where this default exists.
        label: the field's name on the page.
        basic: shown without unfolding "all settings".
        also: what other trainers call it.
        constraints: passed to ``pydantic.Field`` (``ge``, ``le``, ``multiple_of`` ...).
    """
    extra: dict[str, Any] = {"label": label, "basic": basic, "also": list(also)}
    if isinstance(default, type) and issubclass(default, BaseModel):
        return Field(default_factory=default, json_schema_extra=extra, **constraints)
    return Field(default=default, json_schema_extra=extra, **constraints)


def _takes_bool(annotation: Any) -> bool:
    return annotation in (bool, Any) or isinstance(annotation, bool) or any(map(_takes_bool, get_args(annotation)))


class Section(BaseModel):
    """What all parts of the config share: unknown keys are refused, docstrings become descriptions."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _yaml_pitfalls(cls, value: Any, info: ValidationInfo) -> Any:
        """An empty section (`train:`) is one without changes; `yes` and `on` are not the number 1."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if value is None and isinstance(annotation, type) and issubclass(annotation, Section):
            return {}
        if isinstance(value, bool) and not _takes_bool(annotation):
            raise ValueError(f"{str(value).lower()} is not allowed here; it is not a yes-or-no setting")
        return value


class ModelSettings(Section):
    """The model that the LoRA is made for."""

    base: str = setting("demo", "Base model", basic=True, also=("pretrained_model_name_or_path", "base_model_name"))
    """`demo` for the built-in demo model, a folder in diffusers layout, or a Hugging Face id."""
    family: Literal["auto", "sd1"] = setting("auto", "Model family", also=("v2", "sdxl", "model_type"))
    """`auto` looks at the model's files."""
    vae: str | None = setting(None, "Other VAE")
    """Folder or hub id of a VAE to use in place of the model's own."""
    revision: str | None = setting(None, "Hub revision")
    """Branch, tag or commit of a hub model; empty for its main branch."""
    quantize: Literal["none"] = setting("none", "Quantisation")
    """Precision in which the frozen base is held."""


class Source(Section):
    """One folder of pictures."""

    path: str = Field(min_length=1, json_schema_extra={"label": "Folder"})
    """Folder with pictures; subfolders are read too. Folders named like `10_name` inside it give 10 repeats."""
    repeats: int = setting(1, "Repeats", also=("num_repeats", "dataset_repeats"), ge=1, le=10000)
    """How often each picture is seen in one epoch."""
    is_regularization: bool = setting(False, "Regularization", also=("is_reg", "reg_data_dir", "class_data_dir"))
    """Pictures that show what the model should keep doing (prior preservation); their loss has its own weight."""
    class_prompt: str | None = setting(None, "Class prompt", also=("class_tokens", "instance_prompt"))
    """Caption of pictures that have no caption file."""
    mask_path: None = None
    """Folder of masks, one per picture."""


class BucketSettings(Section):
    """Aspect-ratio buckets: pictures of similar shape are trained together, cropped as little as possible."""

    enabled: bool = setting(True, "Buckets", also=("enable_bucket",))
    """Off: every picture is cropped to the resolution itself."""
    min: Size = setting(256, "Smallest side", also=("min_bucket_reso",))
    """Smallest side of a bucket in pixels; never larger than the resolution's own side. Not used where small pictures
    keep their size."""
    max: Size = setting(1024, "Largest side", also=("max_bucket_reso",))
    """Largest side of a bucket in pixels; never smaller than the resolution's own side. Not used where small pictures
    keep their size."""
    step: Annotated[int, Field(ge=8, le=256, multiple_of=8)] = setting(64, "Step", also=("bucket_reso_steps",))
    """Bucket sides are multiples of this many pixels."""
    upscale: bool = setting(False, "Enlarge small pictures", also=("bucket_no_upscale",))
    """Off: pictures smaller than their bucket keep their size, in a bucket of their own."""


class CaptionSettings(Section):
    """What happens to captions before the text encoder reads them."""

    shuffle: bool = setting(False, "Shuffle tags", also=("shuffle_caption",))
    """Shuffle the comma-separated tags after the kept ones, anew each time."""
    keep_tokens: int = setting(0, "Keep first tags", also=("keep_tokens",), ge=0, le=255)
    """How many leading tags stay in place when tags are shuffled or dropped."""
    keep_tokens_separator: str = setting("|||", "Keep separator")
    """Everything before it is kept in place; a second one starts a fixed tail. Overrides the number of kept tags."""
    dropout: Probability = setting(0.0, "Caption dropout", also=("caption_dropout_rate",))
    """Share of steps in which a picture is trained with an empty caption."""
    tag_dropout: Probability = setting(0.0, "Tag dropout", also=("caption_tag_dropout_rate",))
    """Share of tags left out each time, kept tags excepted."""
    prefix: str = setting("", "Prefix", also=("caption_prefix",))
    """Put in front of every caption."""
    suffix: str = setting("", "Suffix", also=("caption_suffix",))
    """Put behind every caption."""
    wildcards: bool = setting(False, "Wildcards", also=("enable_wildcard",))
    """`{a|b}` picks one at random; of a caption with several lines one line is picked."""
    max_token_length: Literal[75, 150, 225] = setting(75, "Caption length", also=("max_token_length",))
    """Tokens the text encoder reads; more than 75 are read in chunks of 75."""
    weighted: bool = setting(False, "Weighted captions", also=("weighted_captions",))
    """Read `(word:1.3)`, `(word)` and `[word]` as emphasis."""


class AugmentSettings(Section):
    """Random changes to pictures."""

    flip: bool = setting(False, "Mirror", also=("flip_aug", "random_flip"))
    """Train half of the time on the mirrored picture. Not for text, or for faces and things that are not symmetric."""
    color: bool = setting(False, "Colour shift", also=("color_aug",))
    """Small random changes of hue and brightness. Needs the latent cache off."""
    random_crop: bool = setting(False, "Random crop", also=("random_crop",))
    """Crop anywhere instead of the middle. Needs the latent cache off."""


class CacheSettings(Section):
    """What is computed once before training."""

    latents: bool = setting(True, "Cache latents", also=("cache_latents",))
    """Encode every picture once, before training; much faster."""
    text: bool = setting(True, "Cache captions", also=("cache_text_encoder_outputs",))
    """Encode captions once. Only used where they do not change and the text encoder is not trained."""
    to_disk: bool = setting(True, "Keep caches on disk", also=("cache_latents_to_disk",))
    """Keep them in the workspace, so that the next run with the same pictures starts at once."""


class DatasetSettings(Section):
    """The pictures and how they are read."""

    sources: list[Source] = setting([], "Folders", basic=True, also=("train_data_dir", "folder_path", "concepts"))
    """Folders with pictures and their captions."""
    resolution: Size | list[Size] | list[tuple[Size, Size]] = setting(
        512, "Resolution", basic=True, also=("resolution", "max_resolution")
    )
    """Side of a square in pixels, several of them, or [width, height] pairs; pictures are brought to this area."""
    caption_extension: str = setting(".txt", "Caption files", also=("caption_extension",), pattern=r"^\.\w+$")
    """Ending of the caption files beside the pictures."""
    buckets: BucketSettings = setting(BucketSettings, "Buckets")
    captions: CaptionSettings = setting(CaptionSettings, "Captions")
    augment: AugmentSettings = setting(AugmentSettings, "Augmentation")
    cache: CacheSettings = setting(CacheSettings, "Cache")

    @model_validator(mode="after")
    def _augmentation_needs_pixels(self) -> DatasetSettings:
        moving = [name for name in ("color", "random_crop") if getattr(self.augment, name)]
        if moving and self.cache.latents:
            raise ValueError(f"augment.{moving[0]} changes the pixels each time: set dataset.cache.latents to false")
        return self


class LoraSettings(Section):
    """The shape of the LoRA."""

    type: Literal["lora"] = setting("lora", "Kind", also=("network_module", "LoRA_type"))
    """Kind of adapter."""
    rank: int = setting(16, "Rank", basic=True, also=("network_dim", "dim", "linear"), ge=1, le=1024)
    """Size of the LoRA: higher can hold more, and learns by heart sooner. 8 to 32 does for most things."""
    alpha: float = setting(16.0, "Alpha", basic=True, also=("network_alpha", "linear_alpha"), gt=0, le=1024)
    """The LoRA's strength is alpha / rank. Equal to rank: full strength."""
    conv_rank: int = setting(0, "Convolution rank", also=("conv_dim", "conv"), ge=0, le=1024)
    """Rank for the 3x3 convolutions; 0 leaves them alone."""
    conv_alpha: float | None = setting(None, "Convolution alpha", gt=0, le=1024)
    """Alpha for the convolutions; empty for the convolution rank."""
    dropout: Probability = setting(0.0, "Dropout", also=("network_dropout",), lt=1)
    """Share of the LoRA's inputs set to zero in each step, against learning by heart."""
    target: Target = setting("attention_ff", "Layers", also=("attn_modules", "layer_preset"))
    """`attention`, `attention_ff` (attention, feed-forward and projections, what most LoRA files hold), or `full`."""
    include: list[str] = setting([], "Only layers matching")
    """Regular expressions; when given, only layers whose name matches one of them."""
    exclude: list[str] = setting([], "Not layers matching")
    """Regular expressions of layers to leave alone."""
    block_ranks: dict[str, Annotated[int, Field(ge=0, le=1024)]] = setting({}, "Rank per block", also=("block_dims",))
    """Regular expression to rank, for layers that should differ; 0 leaves a layer alone."""
    init_from: str | None = setting(None, "Start from", also=("network_weights",))
    """A LoRA file to continue from."""
    train: Literal["unet", "text_encoder", "both"] = setting(
        "unet", "Train", basic=True, also=("network_train_unet_only", "network_train_text_encoder_only")
    )
    """Which part learns. The text encoder helps with names of things the model does not know."""

    @field_validator("include", "exclude", "block_ranks")
    @classmethod
    def _patterns_compile(cls, patterns: Any) -> Any:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression ({error})") from error
        return patterns


class TrainSettings(Section):
    """How training goes."""

    max_steps: int = setting(1000, "Steps", basic=True, also=("max_train_steps", "steps"), ge=1, le=10_000_000)
    """Optimizer steps. Not used when epochs are given."""
    epochs: int | None = setting(None, "Epochs", basic=True, also=("max_train_epochs", "epoch"), ge=1, le=100_000)
    """Passes over the pictures; when given, it wins over steps."""
    batch_size: int = setting(1, "Batch size", basic=True, also=("train_batch_size",), ge=1, le=1024)
    """Pictures per step."""
    gradient_accumulation_steps: int = setting(1, "Gradient accumulation", ge=1, le=1024)
    """Batches added up before the weights change: a larger batch in the same memory."""
    learning_rate: float = setting(
        1e-4, "Learning rate", basic=True, also=("unet_lr", "lr", "unet_learning_rate"), ge=0, le=100
    )
    """Size of each change. 1e-4 is a good start; too high gives noise and NaN."""
    text_encoder_learning_rate: float | None = setting(
        None, "Text encoder learning rate", also=("text_encoder_lr",), ge=0
    )
    """Empty for the same as the learning rate."""
    optimizer: Optimizer = setting("adamw", "Optimizer", also=("optimizer_type",))
    """`adamw` is right for almost everyone; `adamw8bit` needs an NVIDIA GPU."""
    optimizer_args: dict[str, Any] = setting({}, "Optimizer arguments")
    """Further arguments by name, such as `weight_decay: 0.01`."""
    lr_scheduler: LrScheduler = setting("cosine", "Learning rate schedule", also=("lr_scheduler_type",))
    """How the learning rate goes over the run."""
    lr_warmup_steps: int = setting(0, "Warm-up steps", also=("lr_warmup", "warmup_steps"), ge=0)
    """Steps over which the learning rate rises from zero."""
    max_grad_norm: float = setting(1.0, "Gradient clipping", also=("clip_grad_norm", "max_grad_norm"), ge=0)
    """Largest length of a step's gradient; 0 for no limit."""
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = setting("auto", "Precision", also=("train_dtype", "dtype"))
    """`auto` takes bf16 where the GPU has it, fp16 on older ones, fp32 on the CPU."""
    gradient_checkpointing: bool = setting(False, "Gradient checkpointing", basic=True)
    """Much less GPU memory for about a third more time."""
    compile: Literal["auto"] = setting("auto", "Compile")
    """Whether the step is compiled."""
    seed: int = setting(42, "Seed", basic=True, ge=0, lt=2**63)
    """The same seed, data and machine give the same LoRA."""
    clip_skip: int = setting(1, "Clip skip", also=("clip_skip", "text_encoder_layer_skip"), ge=1, le=12)
    """1 uses the text encoder's last layer, 2 the one before it (usual for anime models)."""
    ema: float | None = setting(None, "EMA decay", also=("ema_decay", "use_ema"), gt=0, lt=1)
    """Keep a running mean of the LoRA and save that one; 0.99 suits runs of 1000 steps and more. Empty for none."""
    prior_loss_weight: float = setting(1.0, "Regularization weight", also=("prior_loss_weight",), ge=0, le=100)
    """How much the regularization pictures count."""


class Multires(Section):
    """Pyramid noise (Whitaker 2023): noise of lower resolutions added in."""

    iterations: int = Field(6, ge=1, le=16)
    """How many resolutions."""
    discount: float = Field(0.3, gt=0, lt=1)
    """How much less each lower one counts."""


class LossSettings(Section):
    """What is minimised."""

    type: LossType = setting("l2", "Loss", also=("loss_type", "loss_fn"))
    """`l2` is the usual one; huber and smooth_l1 forgive bad pictures."""
    huber_c: float = setting(0.1, "Huber threshold", also=("huber_c",), gt=0, le=10)
    """Where huber and smooth_l1 turn from square to linear."""
    min_snr_gamma: float | None = setting(None, "Min-SNR gamma", also=("min_snr_gamma", "snr_gamma"), gt=0)
    """5 evens out how much the noise levels count; often learns faster. Empty for off."""
    debiased_estimation: bool = setting(False, "Debiased estimation", also=("debiased_estimation_loss",))
    """Another weighting of noise levels; not together with min-SNR."""
    noise_offset: float = setting(0.0, "Noise offset", ge=0, le=1)
    """0.03 to 0.1 helps with very dark and very bright pictures."""
    multires_noise: Multires | None = setting(
        None, "Pyramid noise", also=("multires_noise_iterations", "multires_noise_discount")
    )
    """Pyramid noise: `iterations` and `discount`."""
    input_perturbation: float = setting(0.0, "Input perturbation", also=("ip_noise_gamma",), ge=0, le=1)
    """Extra noise on the input only, against drift while sampling; 0.1 is usual."""
    zero_terminal_snr: bool = setting(False, "Zero terminal SNR", also=("zero_terminal_snr", "rescale_betas_zero_snr"))
    """Train to full noise; only for v-prediction models made for it."""
    prediction_type: Literal["auto", "epsilon", "v_prediction"] = setting(
        "auto", "Prediction", also=("v_parameterization",)
    )
    """`auto` reads it from the model."""
    timestep_sampling: TimestepSampling = setting("uniform", "Timestep sampling", also=("timestep_type",))
    """How noise levels are drawn."""
    min_timestep: int = setting(0, "Lowest timestep", ge=0, le=999)
    """0 is no noise."""
    max_timestep: int = setting(1000, "Highest timestep", ge=1, le=1000)
    """1000 is all noise; the highest itself is not drawn."""
    masked: Literal[False] = setting(False, "Masked loss")
    """Count only what the masks show."""

    @model_validator(mode="after")
    def _consistent(self) -> LossSettings:
        if self.min_timestep >= self.max_timestep:
            raise ValueError(f"min_timestep ({self.min_timestep}) must be below max_timestep ({self.max_timestep})")
        if self.debiased_estimation and self.min_snr_gamma is not None:
            raise ValueError("debiased_estimation and min_snr_gamma both weight the noise levels: set only one")
        return self


class SamplePrompt(Section):
    """A preview picture made while training."""

    prompt: str = ""
    """What to draw."""
    negative: str = ""
    """What to avoid."""
    width: Size | None = None
    """Pixels; empty for the training resolution."""
    height: Size | None = None
    """Pixels; empty for the training resolution."""
    steps: int = Field(20, ge=1, le=1000)
    """Denoising steps."""
    guidance: float = Field(7.0, ge=0, le=100)
    """How closely the prompt is followed."""
    seed: int = Field(42, ge=0, lt=2**63)
    """The same seed gives the same start."""
    sampler: Sampler = "ddim"
    """Sampling method."""


class SampleSettings(Section):
    """Preview pictures while training."""

    every_steps: int = setting(250, "Preview every", basic=True, also=("sample_every_n_steps", "sample_every"), ge=0)
    """Steps between previews; 0 for none."""
    at_start: bool = setting(True, "Preview at start", also=("sample_at_first",))
    """Also draw them before the first step, to compare with."""
    prompts: list[SamplePrompt] = setting([], "Preview prompts", basic=True, also=("sample_prompts",))
    """What to draw. A plain line is a prompt; `--n --w --h --d --l --s --ss` are read as other trainers read them."""

    @field_validator("prompts", mode="before")
    @classmethod
    def _plain_lines(cls, prompts: Any) -> Any:
        if not isinstance(prompts, list):
            return prompts
        return [parse_line(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]


class ValidationSettings(Section):
    """Loss on pictures that are not trained on."""

    split: Annotated[float, Field(ge=0, lt=1)] = setting(0.0, "Validation share", also=("validation_split",))
    """Share of the pictures held back; 0 for none."""
    every_steps: int = setting(250, "Validate every", also=("validate_every_n_steps",), ge=1)
    """Steps between validations."""


class OutputSettings(Section):
    """What is saved."""

    save_every_steps: int = setting(250, "Save every", basic=True, also=("save_every_n_steps", "save_every"), ge=0)
    """Steps between checkpoints; 0 for only at the end."""
    keep_last: int = setting(3, "Keep", also=("save_last_n_steps", "max_step_saves_to_keep"), ge=1)
    """How many checkpoints are kept."""
    precision: Literal["fp16", "bf16", "float"] = setting("fp16", "File precision", also=("save_precision",))
    """Number format of the finished file."""
    formats: list[Literal["kohya"]] = ["kohya"]
    """File layouts written; kohya's loads everywhere."""
    trigger: str | None = setting(None, "Trigger word", basic=True, also=("trigger_word", "trigger_phrase"))
    """Word that calls the LoRA; written into the file for tools that show it."""
    title: str | None = setting(None, "Title", also=("metadata_title",))
    """Title in the file; empty for the run's name."""
    author: str | None = setting(None, "Author", also=("metadata_author",))
    """Author in the file."""
    license: str | None = setting(None, "Licence", also=("metadata_license",))
    """Licence in the file."""
    hub_repo: None = None
    """Repository on the Hugging Face Hub."""


class Config(Section):
    """A training run, complete."""

    version: Literal[1] = CONFIG_VERSION
    """Version of this format."""
    name: str = setting("my-lora", "Name", basic=True, also=("output_name",), min_length=1, max_length=80)
    """Name of the run and of the finished file."""
    model: ModelSettings = setting(ModelSettings, "Model")
    dataset: DatasetSettings = setting(DatasetSettings, "Dataset")
    lora: LoraSettings = setting(LoraSettings, "LoRA")
    train: TrainSettings = setting(TrainSettings, "Training")
    loss: LossSettings = setting(LossSettings, "Loss")
    samples: SampleSettings = setting(SampleSettings, "Previews")
    validation: ValidationSettings = setting(ValidationSettings, "Validation")
    output: OutputSettings = setting(OutputSettings, "Output")
    trackers: Annotated[list[str], Field(max_length=0)] = []
    """Experiment trackers."""

    @field_validator("name")
    @classmethod
    def _name_is_a_file_name(cls, name: str) -> str:
        if name != name.strip() or name.startswith(".") or any(c in '/\\:*?"<>|' or ord(c) < 32 for c in name):
            raise ValueError('must work as a file name: no / \\ : * ? " < > |, no dot or space in front')
        return name


def options(annotation: Any) -> tuple[Any, ...]:
    """The values a ``Literal`` alias of this module allows, in order."""
    return get_args(annotation)
