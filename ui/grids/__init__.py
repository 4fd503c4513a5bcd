"""Grids on the Generate tab: choosing what changes, and looking at what comes of it."""
