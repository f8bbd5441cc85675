"""A small, complete DreamerV3 agent in PyTorch, useful alone."""
