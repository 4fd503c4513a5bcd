"""Looking back at a run: how good each of its checkpoints is, and which of them is the best."""
