"""What FOSP adds to the Dreamer agent: safety from offline data to online fine-tuning."""
