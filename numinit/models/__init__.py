"""Names and shapes in, weights out: recipes, sources of shapes, checkpoints and their proof."""
