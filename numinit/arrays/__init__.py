"""Adapters: one framework or file format each, and thin."""
