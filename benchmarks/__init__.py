"""Figures of the product, each against its plain counterpart measured in the same run (``make bench``)."""
