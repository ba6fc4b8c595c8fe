"""Evaluation: ranks, metrics, significance."""
