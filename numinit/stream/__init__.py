"""Words to values: pure scalar functions, the same source for every engine.

The arithmetic is +, -, *, /, sqrt and fma, which every processor rounds correctly. A product feeds
a sum only through an explicit `fma` or `product`, so that no compiler can fuse the two.

Read `philox` first: random words from a counter and a key. `elementary` has the logarithm, cosine
and sine. Each further file is a transform of words to one distribution; `transform` says what that
is. Last, `rounding` and `dtypes` have the element types.
"""
