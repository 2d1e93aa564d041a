"""The study file: its settings, search space and objectives, parsed and checked.

May import `training.recipe`, `common`, `scheduling` for its configuration and rules, and the registry of samplers.
"""
