"""Tables and photos in, a checkpoint out."""
