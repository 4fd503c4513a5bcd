"""Every setting of a training run: one pydantic model for YAML, form, command line and reference page.

How a setting is written is told in ``config_base.py``. The sections of the dataset and of training have files of their
own; everything is imported from here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from trainer.config_base import FileName, Probability, Section, Size, setting
from trainer.config_dataset import (
    AugmentSettings,
    BucketSettings,
    CacheSettings,
    CaptionLength,
    CaptionSettings,
    DatasetSettings,
    Source,
)
from trainer.config_loss import HuberSchedule, LossSettings, LossType, Multires, Preserve, TimestepSampling
from trainer.config_relevance import is_empty, is_set
from trainer.config_tracking import Tracker, TrackingSettings
from trainer.config_training import (
    LoraPrecision,
    LoraSettings,
    LrScheduler,
    MergedLora,
    Optimizer,
    Target,
    TrainSettings,
)
from trainer.hub_names import HUB_NAME
from trainer.prompt_lines import parse_line
from trainer.sampler_names import NoiseSchedule, Sampler, sampling_of, schedules_of

__all__ = [
    "AugmentSettings",
    "BucketSettings",
    "CacheSettings",
    "CaptionLength",
    "CaptionSettings",
    "DatasetSettings",
    "HuberSchedule",
    "LoraPrecision",
    "LoraSettings",
    "LossSettings",
    "LossType",
    "LrScheduler",
    "MergedLora",
    "Multires",
    "Optimizer",
    "Preserve",
    "Probability",
    "Prompt",
    "Section",
    "Source",
    "Target",
    "TimestepSampling",
    "Tracker",
    "TrackingSettings",
    "TrainSettings",
    "setting",
]

Quantize = Literal["none", "fp8", "int8", "nf4"]
_VALIDATED = is_set("validation.split") | is_set("validation.path")


class ModelSettings(Section):
    """The model that the LoRA is made for."""

    base: str = setting(
        "demo",
        "Base model",
        basic=True,
        also=("pretrained_model_name_or_path", "base_model_name", "name_or_path", "model_name", "ckpt"),
    )
    """`demo` for the built-in demo model, a .safetensors or .ckpt file, a folder in diffusers layout, or a Hugging Face
    id. A file is made into a folder once, which takes as much disk again."""
    family: Literal["auto", "sd1", "sd2", "sdxl"] = setting(
        "auto", "Model family", also=("v2", "sdxl", "is_v2", "is_xl", "arch", "model_type")
    )
    """`auto` looks at the model's files."""
    vae: str | None = setting(None, "Other VAE", also=("vae_path", "pretrained_vae_model_name_or_path"))
    """File, folder or hub id of a VAE to use in place of the model's own."""
    revision: str | None = setting(None, "Hub revision")
    """Branch, tag or commit of a hub model; empty for its main branch."""
    quantize: Quantize = setting(
        "none",
        "Quantisation",
        also=("fp8_base", "fp8_base_unet", "quantization", "base_quantization", "qtype", "weight_dtype"),
    )
    """Fewer bits for the frozen UNet while training, to save memory: `fp8` and `int8` take half of what 16 bits take,
    `nf4` somewhat more than a quarter and is the least exact. Steps take longer."""
    offload: Probability = setting(
        0.0,
        "Offload",
        also=("blocks_to_swap", "layer_offload_fraction", "layer_offloading", "layer_offloading_transformer_percent"),
    )
    """Share of the frozen UNet that lies in the machine's memory while training, and comes to the GPU block by block:
    0.5 for a half. For GPUs that hold it no other way; steps take longer, the result is the same."""
    share_out: bool = setting(
        False,
        "Share out",
        also=("fsdp", "deepspeed", "zero_stage", "fsdp_sharding_strategy"),
        relevant=is_empty("model.offload"),
    )
    """Where several GPUs train together: each holds its part of the frozen UNet, and a block is whole while it
    computes. For GPUs that hold it no other way and are well connected; steps take longer, the result is the same."""

    @model_validator(mode="after")
    def _lies_in_one_place(self) -> ModelSettings:
        if self.share_out and self.offload:
            raise ValueError("share_out and offload both say where the model lies: set only one")
        return self


class Prompt(Section):
    """What a picture shows and how it is drawn."""

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
    schedule: NoiseSchedule = "model"
    """Which noise levels the steps are taken at: the model's own, Karras, SGM Uniform and so on."""

    @model_validator(mode="before")
    @classmethod
    def _one_name_for_both(cls, values: Any) -> Any:
        """Take ``DPM++ 2M Karras`` apart: sampler and schedule were one name here before, and are elsewhere."""
        return {**values, **sampling_of(str(values.get("sampler")))} if isinstance(values, dict) else values

    @field_validator("schedule")
    @classmethod
    def _sampler_follows_it(cls, schedule: NoiseSchedule, info: ValidationInfo) -> NoiseSchedule:
        sampler = info.data.get("sampler")
        if sampler and schedule not in schedules_of(sampler):
            raise ValueError(f"must be one of {', '.join(schedules_of(sampler))} with the sampler {sampler}")
        return schedule


class SamplePrompt(Prompt):
    """A preview picture made while training."""

    clip_skip: int | None = Field(None, ge=1, le=12)
    """1 reads the text encoder's last layer, 2 the one before it; empty for the one that is trained with."""


class SampleSettings(Section):
    """Preview pictures while training."""

    every_steps: int = setting(
        250,
        "Preview every",
        basic=True,
        also=("sample_every_n_steps", "sample_every", "sample_after"),
        relevant=is_set("samples.prompts") & is_empty("samples.every_epochs"),
        ge=0,
    )
    """Steps between previews; 0 for none. Not used when epochs are given."""
    every_epochs: int | None = setting(
        None,
        "Preview every epochs",
        also=("sample_every_n_epochs", "validation_epochs"),
        relevant=is_set("samples.prompts"),
        ge=1,
        le=100_000,
    )
    """Epochs between previews; when given, they win over steps."""
    at_start: bool = setting(
        True,
        "Preview at start",
        also=("sample_at_first", "skip_first_sample", "sample_skip_first"),
        relevant=is_set("samples.prompts"),
    )
    """Also draw them before the first step, to compare with."""
    prompts: list[SamplePrompt] = setting(
        [],
        "Preview prompts",
        basic=True,
        also=("sample_prompts", "samples", "sample_definition_file_name", "validation_prompt"),
    )
    """What to draw. A plain line is a prompt; `--n --w --h --d --l --s --ss --cs` are read as other trainers read
    them; a flag that is none of these is told."""

    @field_validator("prompts", mode="before")
    @classmethod
    def _plain_lines(cls, prompts: Any) -> Any:
        if not isinstance(prompts, list):
            return prompts
        return [parse_line(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]


class ValidationSettings(Section):
    """Loss on pictures that are not trained on, with the same noise and noise levels each time."""

    split: Annotated[float, Field(ge=0, lt=1)] = setting(
        0.0, "Validation share", also=("validation_split",), relevant=is_empty("validation.path")
    )
    """Share of the pictures held back; 0 for none."""
    path: str | None = setting(
        None, "Validation folder", also=("validation_path", "validation_data_dir", "validation_items"), min_length=1
    )
    """A folder of pictures with captions that are only validated on, in place of a share of the training pictures."""
    every_steps: int = setting(
        250,
        "Validate every",
        also=("validate_every_n_steps", "validate_after"),
        relevant=(_VALIDATED) & is_empty("validation.every_epochs"),
        ge=1,
    )
    """Steps between validations. Not used when epochs are given."""
    every_epochs: int | None = setting(
        None, "Validate every epochs", also=("validate_every_n_epochs",), relevant=_VALIDATED, ge=1, le=100_000
    )
    """Epochs between validations; when given, they win over steps."""
    timesteps: int = setting(
        4,
        "Noise levels",
        also=("validation_timesteps", "max_validation_steps", "validation_sigmas"),
        relevant=_VALIDATED,
        ge=1,
        le=100,
    )
    """Noise levels that each picture is tried at, evenly spread over those that are trained. Each stands for a band of
    them, and its loss is told too: much noise is about composition, little noise about detail."""
    noises: int = setting(1, "Noises per picture", also=("validation_seed",), relevant=_VALIDATED, ge=1, le=100)
    """Different noises that each picture is tried with at every noise level. More take longer and waver less."""
    early_stop_patience: int | None = setting(
        None, "Stop early after", also=("early_stopping_patience", "early_stop"), relevant=_VALIDATED, ge=1, le=100_000
    )
    """Validations in a row without a better one after which the run ends; its best checkpoint is kept. Empty: the run
    goes on to its end."""

    @model_validator(mode="after")
    def _one_choice_of_pictures(self) -> ValidationSettings:
        if self.path is not None and self.split > 0:
            raise ValueError("split and path both choose the validation pictures: set only one")
        if self.early_stop_patience is not None and not self.has_pictures:
            raise ValueError("early_stop_patience needs pictures to validate on: set split or path")
        return self

    @property
    def has_pictures(self) -> bool:
        """Whether there is something to validate on."""
        return self.split > 0 or self.path is not None


class OutputSettings(Section):
    """What is saved."""

    save_every_steps: int = setting(
        250,
        "Save every",
        basic=True,
        also=("save_every_n_steps", "save_every", "checkpointing_steps"),
        relevant=is_empty("output.save_every_epochs"),
        ge=0,
    )
    """Steps between checkpoints; 0 for only at the end. Not used when epochs are given."""
    save_every_epochs: int | None = setting(
        None, "Save every epochs", also=("save_every_n_epochs", "save_every_unit"), ge=1, le=100_000
    )
    """Epochs between checkpoints; when given, they win over steps."""
    save_at: list[Annotated[int, Field(ge=1)]] = setting([], "Also save at", also=("save_n_epoch_ratio",))
    """Steps at which a checkpoint is saved besides, such as `[100, 300]`."""
    keep_last: int = setting(
        3,
        "Keep",
        also=(
            "save_last_n_steps",
            "save_last_n_epochs",
            "max_step_saves_to_keep",
            "rolling_backup_count",
            "checkpoints_total_limit",
        ),
        ge=1,
    )
    """How many of the newest checkpoints are kept."""
    keep_best: bool = setting(False, "Keep the best", also=("save_best",), relevant=_VALIDATED)
    """Also save a checkpoint at each validation that is the best so far, and keep the best one beside the newest."""
    use_best: bool = setting(False, "Finish with the best", also=("load_best_model_at_end",), relevant=_VALIDATED)
    """The finished LoRA is the one of the lowest validation loss, not the last one. Keeps the best checkpoint too."""
    precision: Literal["fp16", "bf16", "float"] = setting(
        "fp16", "File precision", also=("save_precision", "output_dtype", "save_dtype")
    )
    """Number format of the finished file."""
    formats: list[Literal["kohya"]] = Field(default=["kohya"])
    """File layouts written; kohya's loads everywhere."""
    trigger: str | None = setting(
        None, "Trigger word", basic=True, also=("trigger_word", "trigger_phrase", "metadata_trigger_phrase")
    )
    """Word that calls the LoRA; written into the file for tools that show it."""
    title: str | None = setting(None, "Title", also=("metadata_title",))
    """Title in the file; empty for the run's name."""
    author: str | None = setting(None, "Author", also=("metadata_author",))
    """Author in the file."""
    license: str | None = setting(None, "Licence", also=("metadata_license",))
    """Licence in the file."""
    description: str | None = setting(None, "Description", also=("metadata_description", "training_comment"))
    """A text about the LoRA, written into the file."""
    tags: str | None = setting(None, "Tags", also=("metadata_tags",))
    """Words for collections to sort it by, with commas between; written into the file."""
    describe_dataset: bool = setting(
        False, "Tell about the pictures", also=("ss_tag_frequency", "no_metadata", "include_train_config")
    )
    """Also write folder names, class prompts and how often each tag occurs into the file, as kohya's tools do; whoever
    gets the file can read them. Numbers and settings are always written, paths never."""
    dates: bool = setting(False, "Tell the dates", also=("ss_training_started_at",))
    """Also write when the training began and ended. Without, the same training gives the same file to the byte."""
    hub_repo: str | None = setting(
        None,
        "Share as",
        also=("huggingface_repo_id", "push_to_hub", "hub_model_id", "hub_repo_id"),
        pattern=HUB_NAME,
    )
    """Repository on the Hugging Face Hub, `owner/name`, that the finished LoRA is sent to, with a model card, settings
    without paths, and previews. A new one is private. Empty: nothing is sent."""


class Config(Section):
    """A training run, complete."""

    version: Literal[1] = 1
    """Version of this format."""
    name: FileName = setting(
        "my-lora",
        "Name",
        basic=True,
        also=("output_name", "output_model_destination", "save_filename_prefix"),
    )
    """Name of the run and of the finished file."""
    model: ModelSettings = setting(ModelSettings, "Model")
    dataset: DatasetSettings = setting(DatasetSettings, "Dataset")
    lora: LoraSettings = setting(LoraSettings, "LoRA")
    train: TrainSettings = setting(TrainSettings, "Training")
    loss: LossSettings = setting(LossSettings, "Loss")
    samples: SampleSettings = setting(SampleSettings, "Previews")
    validation: ValidationSettings = setting(ValidationSettings, "Validation")
    output: OutputSettings = setting(OutputSettings, "Output", validate_default=True)
    trackers: list[Tracker] = setting([], "Trackers", also=("report_to", "log_with"))
    """Experiment trackers that follow the run: `tensorboard`, `wandb`, `trackio`. Keys come from the environment only,
    such as WANDB_API_KEY."""
    tracking: TrackingSettings = setting(TrackingSettings, "Tracking")

    @field_validator("train")
    @classmethod
    def _rates_of_the_kind(cls, train: TrainSettings, info: ValidationInfo) -> TrainSettings:
        lora = info.data.get("lora")  # absent where it is wrong itself
        if train.loraplus_lr_ratio != 1 and lora is not None and lora.type in ("loha", "lokr"):
            raise ValueError(
                f"loraplus_lr_ratio has no use for lora.type {lora.type}, which has no up part: set it to 1"
            )
        return train

    @field_validator("train")
    @classmethod
    def _one_hand_on_the_weights(cls, train: TrainSettings, info: ValidationInfo) -> TrainSettings:
        lora = info.data.get("lora")  # absent where it is wrong itself
        if train.optimizer == "schedule_free_adamw" and lora is not None and lora.max_norm is not None:
            raise ValueError("schedule_free_adamw averages weights that lora.max_norm would change: set one of them")
        return train

    @field_validator("train")
    @classmethod
    def _precise_enough(cls, train: TrainSettings, info: ValidationInfo) -> TrainSettings:
        lora = info.data.get("lora")  # absent where it is wrong itself
        if train.lora_precision == "float32" or lora is None:
            return train
        problems = []
        if lora.type == "dora":
            problems.append("the lengths that lora.type dora keeps would change the model before anything is learned")
        if lora.max_norm is not None:
            problems.append("lora.max_norm shortens weights by less than 16 bits tell apart")
        if problems:
            raise ValueError(f"lora_precision {train.lora_precision}: {'; '.join(problems)}: set it to float32")
        return train

    @field_validator("output")
    @classmethod
    def _preserving_needs_a_trigger(cls, output: OutputSettings, info: ValidationInfo) -> OutputSettings:
        loss = info.data.get("loss")
        if loss is not None and loss.preserve is not None and not output.trigger:
            raise ValueError("loss.preserve replaces the trigger word, and there is none: set output.trigger")
        return output

    @field_validator("output")
    @classmethod
    def _best_is_known_by_validation(cls, output: OutputSettings, info: ValidationInfo) -> OutputSettings:
        wanted = next((name for name in ("use_best", "keep_best") if getattr(output, name)), None)
        validation = info.data.get("validation")  # absent where it is wrong itself
        if wanted and validation is not None and not validation.has_pictures:
            raise ValueError(f"{wanted} needs a validation: set validation.split or validation.path")
        return output

    @field_validator("loss")
    @classmethod
    def _masks_and_loss_go_together(cls, loss: LossSettings, info: ValidationInfo) -> LossSettings:
        dataset = info.data.get("dataset")  # absent where it is wrong itself
        if dataset is None:
            return loss
        masked = [number for number, source in enumerate(dataset.sources) if source.mask_path is not None]
        if loss.masked == "mask" and dataset.sources and not masked:
            raise ValueError("masked is mask, but no folder of dataset.sources has a mask_path: set one")
        if masked and loss.masked != "mask":
            raise ValueError(f"dataset.sources.{masked[0]} has a mask_path: set loss.masked to mask, or leave it empty")
        return loss

    @property
    def keeps_best(self) -> bool:
        """Whether the best checkpoint by validation loss is saved and kept."""
        return self.output.keep_best or self.output.use_best or self.validation.early_stop_patience is not None

    @property
    def keeps_parts(self) -> bool:
        """Whether text encoders and VAE stay loaded when the caches are full: they draw, or differ from their files."""
        return bool(self.samples.prompts or self.lora.merge_before_training)


def options(annotation: Any) -> tuple[Any, ...]:
    """The values a ``Literal`` alias of this module allows, in order."""
    return get_args(annotation)
