"""The Merge tab's tools for LoRA files: merge, extract, resize, convert, inspect."""
