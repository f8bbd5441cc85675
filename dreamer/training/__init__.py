"""Around the learning: loops, collection, evaluation, logs and checkpoints."""
