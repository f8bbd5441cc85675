"""SafeReach: an arm on a table moves its tool to a goal and must not touch obstacles."""
