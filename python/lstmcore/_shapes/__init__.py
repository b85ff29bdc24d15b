"""Modules that only move, repeat or combine numbers, or hand a module another axis as time."""
