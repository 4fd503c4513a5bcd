"""What is shared of a LoRA, and how."""

from __future__ import annotations

from pydantic import field_validator

from trainer.config_base import Section, setting
from trainer.hub_names import HUB_ID


class ShareSettings(Section):
    """How a LoRA is put on the Hugging Face Hub."""

    repo: str | None = setting(None, "Repository")
    """`owner/name`; empty for the name of the LoRA under the account that is logged in."""
    public: bool = setting(False, "Everyone may see it")
    """A new repository is private otherwise."""
    samples: int = setting(4, "Sample pictures", ge=0, le=24)
    """Newest preview pictures that are sent, with their prompts; 0 for none."""
    describe_dataset: bool = setting(False, "Tell about the pictures")
    """Also send folder names, class prompts and tags, where the file tells of them."""
    base_model: str | None = setting(None, "Base model on the Hub")
    """`owner/name` of the model that it was trained on, where that was a file or folder on this machine."""
    note: str = setting("", "Your own words", max_length=2000)
    """A text for the model card, over what it says by itself."""

    @field_validator("repo", "base_model")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        name = (name or "").strip() or None
        if name is not None and not HUB_ID.fullmatch(name):
            raise ValueError("must be owner/name")
        return name
