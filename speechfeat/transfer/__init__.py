"""Encoders trained further for a task: from heads on frozen features to whole encoders, over one loop."""
