"""Streams and pools of streams: modules that are given one step at a time and keep their state."""
