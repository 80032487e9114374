"""Runs plans: the only interpreter of plan steps. Each step is one short function that calls the worker for it."""
