"""What an initializer knows of a weight: its shape and axes, fans, gains and keys."""
