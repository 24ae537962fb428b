"""Vendors in, domain values out."""
