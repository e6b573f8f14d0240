"""Texts and histories to vectors."""
