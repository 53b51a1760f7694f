"""Photo in, attributes out: the part of Facet that lives on the edge box, without torch."""

__version__ = "0.1.0"
