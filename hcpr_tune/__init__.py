"""Distributed hyperparameter search for self-paced hard-class pair reweighting (HCPR)."""

__version__ = "0.1.0"
