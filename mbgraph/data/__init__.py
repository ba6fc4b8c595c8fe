"""Data: event logs and dataset files in, one heterograph with held-out pairs out."""
