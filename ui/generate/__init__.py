"""The Generate tab: the form, what is being drawn, the pictures that were drawn."""
