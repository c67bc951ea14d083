"""Layers and the models made of them."""
