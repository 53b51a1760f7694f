"""A checkpoint in, a bundle out: graph, precision, engine, gate."""
