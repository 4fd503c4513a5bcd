"""Experiment trackers: TensorBoard, W&B and trackio, through Accelerate. Off unless the config names them."""
