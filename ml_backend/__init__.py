"""Drafts Aku's turns from the current checkpoint and serves Label Studio."""
