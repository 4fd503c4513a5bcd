"""The dataset's settings: sources, buckets, captions, augmentation, caches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from trainer.config_base import Probability, Section, Size, setting
from trainer.config_relevance import is_one_of, is_set

CaptionLength = Literal[75, 150, 225]
_BUCKETS = is_set("dataset.buckets.enabled")
_TAGS_CHANGE = (
    is_set("dataset.captions.shuffle")
    | is_set("dataset.captions.tag_dropout")
    | is_set("dataset.captions.token_warmup_step")
)


class BucketSettings(Section):
    """Aspect-ratio buckets: pictures of similar shape are trained together, cropped as little as possible."""

    enabled: bool = setting(True, "Buckets", also=("enable_bucket", "aspect_ratio_bucketing", "buckets", "center_crop"))
    """Off: every picture is cropped to the resolution itself."""
    min: Size = setting(
        256, "Smallest side", also=("min_bucket_reso",), relevant=_BUCKETS & is_set("dataset.buckets.upscale")
    )
    """Smallest side of a bucket in pixels; never larger than the resolution's own side. Not used where small pictures
    keep their size."""
    max: Size = setting(
        1024, "Largest side", also=("max_bucket_reso",), relevant=_BUCKETS & is_set("dataset.buckets.upscale")
    )
    """Largest side of a bucket in pixels; never smaller than the resolution's own side. Not used where small pictures
    keep their size."""
    step: Annotated[int, Field(ge=8, le=256, multiple_of=8)] = setting(
        64, "Step", also=("bucket_reso_steps", "bucket_tolerance"), relevant=_BUCKETS
    )
    """Bucket sides are multiples of this many pixels. 64 suits every model; SDXL also takes 32, which crops less."""
    upscale: bool = setting(False, "Enlarge small pictures", also=("bucket_no_upscale",), relevant=_BUCKETS)
    """Off: pictures smaller than their bucket keep their size, in a bucket of their own."""


class CaptionSettings(Section):
    """What happens to captions before the text encoder reads them."""

    shuffle: bool = setting(False, "Shuffle tags", also=("shuffle_caption", "shuffle_tokens", "enable_tag_shuffling"))
    """Shuffle the comma-separated tags after the kept ones, anew each time."""
    separator: str = setting(",", "Tag separator", also=("caption_separator", "tag_delimiter"), min_length=1)
    """What stands between tags in the caption files. Tags that were shuffled or dropped are joined by commas."""
    secondary_separator: str = setting("", "Inner separator", relevant=_TAGS_CHANGE)
    """Tags joined by this, such as `;;;`, stay together when tags are shuffled or dropped. At the end it becomes the
    tag separator."""
    keep_tokens: int = setting(0, "Keep first tags", also=("keep_tags_count",), relevant=_TAGS_CHANGE, ge=0, le=255)
    """How many leading tags stay in place when tags are shuffled or dropped."""
    keep_tokens_separator: str = setting("|||", "Keep separator")
    """Everything before it is kept in place; a second one starts a fixed tail. Overrides the number of kept tags."""
    dropout: Probability = setting(0.0, "Caption dropout", also=("caption_dropout_rate", "prompt_dropout_prob"))
    """Share of steps in which a picture is trained with an empty caption."""
    dropout_every_n_epochs: int = setting(0, "Epochs without captions", also=("caption_dropout_every_n_epochs",), ge=0)
    """Every so many epochs, one in which all captions are empty: 3 for the third, sixth, ninth. 0 for none."""
    tag_dropout: Probability = setting(
        0.0,
        "Tag dropout",
        also=("caption_tag_dropout_rate", "token_dropout_rate", "tag_dropout_probability", "tag_dropout_enable"),
    )
    """Share of tags left out each time, kept tags excepted."""
    token_warmup_step: float = setting(0.0, "Tag warm-up", ge=0, le=10_000_000)
    """Steps over which captions grow to all their tags; below 1 it is a share of the run. 0 for all tags at once."""
    token_warmup_min: int = setting(
        1, "Tags at first", relevant=is_set("dataset.captions.token_warmup_step"), ge=0, le=255
    )
    """How many tags besides the kept ones a tag warm-up begins with."""
    prefix: str = setting("", "Prefix", also=("caption_prefix",))
    """Put in front of every caption."""
    suffix: str = setting("", "Suffix", also=("caption_suffix",))
    """Put behind every caption."""
    wildcards: bool = setting(False, "Wildcards", also=("enable_wildcard",))
    """`{a|b}` picks one at random; of a caption with several lines one line is picked."""
    max_token_length: CaptionLength = setting(75, "Caption length", also=("text_encoder_sequence_length",))
    """Tokens the text encoder reads; more than 75 are read in chunks of 75."""
    weighted: bool = setting(False, "Weighted captions", also=("weighted_captions",))
    """Read `(word:1.3)`, `(word)` and `[word]` as emphasis."""


class AugmentSettings(Section):
    """Random changes to pictures."""

    flip: bool = setting(False, "Mirror", also=("flip_aug", "flip_x", "random_flip", "enable_random_flip"))
    """Train half of the time on the mirrored picture. Not for text, or for faces and things that are not symmetric."""
    color: bool = setting(False, "Colour shift", also=("color_aug", "enable_random_hue", "enable_random_brightness"))
    """Small random changes of hue and brightness. With cached latents there are as many as `cache.variants`."""
    random_crop: bool = setting(False, "Random crop", also=("enable_crop_jitter",))
    """Crop anywhere instead of the middle. With cached latents there are as many crops as `cache.variants`."""

    @property
    def changes_pixels(self) -> bool:
        """Whether there are more forms of a picture than itself and its mirror image."""
        return self.color or self.random_crop


_OVERRIDDEN: dict[str, tuple[type[Section], tuple[str, ...]]] = {
    "captions": (CaptionSettings, ("max_token_length", "weighted")),  # the text encoder reads all captions alike
    "augment": (AugmentSettings, ()),
}
"""Sections that a folder may have settings of its own for, and those of them that hold for all."""


class Source(Section):
    """One folder of pictures."""

    path: str = Field(min_length=1, json_schema_extra={"label": "Folder", "basic": True})
    """Folder with pictures; subfolders are read too. Folders named like `10_name` inside it give 10 repeats. Also a
    data set of Hugging Face's `datasets`: a saved folder, Parquet, or `hf://datasets/owner/name`."""
    repeats: int = setting(
        1, "Repeats", basic=True, also=("num_repeats", "dataset_repeats", "balancing"), ge=1, le=10000
    )
    """How often each picture is seen in one epoch."""
    is_regularization: bool = setting(
        False,
        "Regularization",
        basic=True,
        also=("is_reg", "reg_data_dir", "class_data_dir", "with_prior_preservation"),
    )
    """Pictures that show what the model should keep doing (prior preservation); their loss has its own weight."""
    class_prompt: str | None = setting(
        None, "Class prompt", basic=True, also=("class_tokens", "instance_prompt", "default_caption")
    )
    """Caption of pictures that have no caption file."""
    metadata_file: str | None = setting(None, "Caption table", also=("in_json",))
    """A kohya JSON, `.jsonl` or `.csv` with captions that lies elsewhere; one in the folder is found by itself."""
    caption_column: str | None = setting(None, "Caption column")
    """Column of a `metadata.jsonl`, `metadata.csv`, kohya JSON or data set that holds the captions. Empty for `text`,
    `caption` or `prompt`, and for kohya's caption and tags together."""
    image_column: str | None = setting(None, "Picture column")
    """Column of a data set that holds the pictures; empty for the first one that does. Not used for folders."""
    captions: dict[str, Any] = setting({}, "Own caption settings")
    """Caption settings that differ for this folder, such as `shuffle: true` or `prefix: photo`."""
    augment: dict[str, Any] = setting({}, "Own augmentation")
    """Augmentation that differs for this folder, such as `flip: false`."""
    mask_path: str | None = setting(None, "Masks", also=("conditioning_data_dir",))
    """Folder of masks: grey pictures with the names of the pictures. White counts, black does not. For
    `loss.masked: mask`."""

    @field_validator("captions", "augment")
    @classmethod
    def _settings_of_a_folder(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        section, fixed = _OVERRIDDEN[str(info.field_name)]
        names = [name for name in section.model_fields if name not in fixed]
        wrong = [name for name in given if name not in names]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is not a setting of a folder; these are: {', '.join(names)}")
        try:
            return section.model_validate(given).model_dump(include=set(given))
        except ValidationError as error:
            told = [f"{each['loc'][0]}: {each['msg']}" for each in error.errors() if each["loc"]]
            raise ValueError("; ".join(told)) from error


class CacheSettings(Section):
    """What is computed once before training."""

    latents: bool = setting(True, "Cache latents", also=("cache_latents", "latent_caching"))
    """Encode every picture once, before training; much faster."""
    variants: int = setting(
        4,
        "Cached variants",
        also=("image_variations",),
        relevant=is_set("dataset.cache.latents")
        & (is_set("dataset.augment.color") | is_set("dataset.augment.random_crop")),
        ge=1,
        le=256,
    )
    """How many random forms of each picture are cached where its colours or its crop are random. More vary better and
    take longer to prepare."""
    text: bool = setting(
        True,
        "Cache captions",
        also=("cache_text_encoder_outputs", "cache_text_embeddings", "text_variations"),
        relevant=is_one_of("lora.train", "unet"),
    )
    """Encode captions once, with all their wildcards. Not used where tags are shuffled, dropped or warmed up, or where
    the text encoder is trained."""
    text_gb: float = setting(
        2.0,
        "Memory for captions",
        relevant=is_set("dataset.cache.text") & is_one_of("lora.train", "unet"),
        ge=0,
        le=1024,
    )
    """GiB that cached captions may take, in memory and on disk. What wildcards make of all captions together may be
    more; then each is encoded when it comes and those used last are kept, which takes a little longer."""
    to_disk: bool = setting(
        True, "Keep caches on disk", also=("cache_latents_to_disk", "cache_text_encoder_outputs_to_disk", "cache_dir")
    )
    """Keep them in the workspace, so that the next run with the same pictures starts at once."""


class DatasetSettings(Section):
    """The pictures and how they are read."""

    sources: list[Source] = setting(
        [],
        "Folders",
        basic=True,
        also=(
            "train_data_dir",
            "folder_path",
            "dataset_path",
            "concepts",
            "datasets",
            "instance_data_dir",
            "dataset_name",
        ),
    )
    """Folders with pictures and their captions."""
    resolution: Size | list[Size] | list[tuple[Size, Size]] = setting(
        512, "Resolution", basic=True, also=("max_resolution",)
    )
    """Side of a square in pixels, several of them, or [width, height] pairs; pictures are brought to this area."""
    caption_extension: str = setting(".txt", "Caption files", also=("caption_ext",), pattern=r"^\.\w+$")
    """Ending of the caption files beside the pictures."""
    buckets: BucketSettings = setting(BucketSettings, "Buckets")
    captions: CaptionSettings = setting(CaptionSettings, "Captions")
    augment: AugmentSettings = setting(AugmentSettings, "Augmentation")
    cache: CacheSettings = setting(CacheSettings, "Cache")

    def captions_of(self, source: int | None) -> CaptionSettings:
        """The caption settings of the ``source``-th folder; the general ones for None."""
        return self.captions if source is None else self.captions.model_copy(update=self.sources[source].captions)

    def augment_of(self, source: int | None) -> AugmentSettings:
        """The augmentation of the ``source``-th folder; the general one for None."""
        return self.augment if source is None else self.augment.model_copy(update=self.sources[source].augment)
