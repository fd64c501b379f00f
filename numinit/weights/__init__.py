"""Properties of a weight that initializers use: shape, axes, fans, gains and keys."""
