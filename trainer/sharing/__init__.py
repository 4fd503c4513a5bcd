"""Putting a LoRA on the Hugging Face Hub: what goes there, what never does, and sending it. Never torch."""
